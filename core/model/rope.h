// Rotary position embedding: the laws that stretch it, as frequencies in float64.
//
// Head dimension d, pair i = 0 .. d/2-1: the pair is turned by position * inverse[i]; plain RoPE has
// inverse[i] = theta^(-2i/d). cos and sin are both multiplied by `attention`. The formulas are those of
// transformers' modeling_rope_utils.py, so that a checkpoint means the same there and here.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace longlora::model {

enum class RopeType { none, linear, dynamic, yarn, longrope, llama3 };

[[nodiscard]] std::string_view name_of(RopeType type);
[[nodiscard]] std::optional<RopeType> rope_type_of(std::string_view name);  // "default" is none, "su" longrope
[[nodiscard]] std::string rope_type_list();                                 // "none, linear, ..." for messages

struct RopeSettings {
  RopeType type = RopeType::none;
  double theta = 10000.0;
  double factor = 1.0;                                   // over original_length; none: 1
  int64_t original_length = 0;                           // tokens the model was pre-trained for, before this scaling
  std::optional<double> attention_factor;                // yarn, longrope; empty: from the factor
  std::optional<double> beta_fast, beta_slow;            // yarn; empty: 32, 1
  std::optional<double> mscale, mscale_all_dim;          // yarn
  bool truncate = true;                                  // yarn
  std::vector<double> short_factor, long_factor;         // longrope, d/2 numbers each
  double low_freq_factor = 1.0, high_freq_factor = 4.0;  // llama3
  bool operator==(const RopeSettings&) const = default;
};

// What is wrong with the settings for this head dimension, or "".
[[nodiscard]] std::string fault_of(const RopeSettings& rope, int64_t head_dim);

struct RopeFrequencies {
  std::vector<double> inverse;  // [head_dim / 2] radians per token
  double attention = 1.0;       // multiplies cos and sin
};

// Frequencies for a sequence of `sequence_length` tokens (highest position + 1): only `dynamic` and
// `longrope` depend on it. Settings must be without fault.
[[nodiscard]] RopeFrequencies frequencies(const RopeSettings& rope, int64_t head_dim, int64_t sequence_length);

// The attention factor that the law gives by itself, where the settings name none: yarn's 0.1 ln(factor) + 1 or the quotient
// of its mscales, longrope's sqrt(1 + ln(factor) / ln(original)); 1 for the others.
[[nodiscard]] double own_attention_factor(const RopeSettings& rope);

// "NTK-aware" scaling: the theta that stretches the slowest pair by `factor` and leaves the fastest alone,
// theta * factor^(d/(d-2)). A model extended this way is a plain one with this theta.
[[nodiscard]] double ntk_theta(double theta, double factor, int64_t head_dim);

// The theta that dynamic NTK scaling with `factor` reaches at `ratio` times the original length, kept for every length:
// theta * (factor * ratio - (factor - 1))^(d/(d-2)). Gradient's Llama-3 stages are made so (factor 4, one after another).
[[nodiscard]] double dynamic_frozen_theta(double theta, double factor, double ratio, int64_t head_dim);

// The theta whose critical length is `length` where theta's own is `original` ("Scaling Laws of RoPE-based
// Extrapolation", Liu et al. 2023, arXiv 2310.05209): theta^(ln(length / 2 pi) / ln(original / 2 pi)).
[[nodiscard]] double scaling_law_theta(double theta, double original, double length);

}  // namespace longlora::model

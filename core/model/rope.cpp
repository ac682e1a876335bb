#include "core/model/rope.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <utility>

#include <fmt/format.h>

namespace longlora::model {
namespace {

constexpr std::array<std::pair<RopeType, std::string_view>, 6> kNames = {{
    {RopeType::none, "none"},
    {RopeType::linear, "linear"},
    {RopeType::dynamic, "dynamic"},
    {RopeType::yarn, "yarn"},
    {RopeType::longrope, "longrope"},
    {RopeType::llama3, "llama3"},
}};

std::vector<double> plain(double theta, int64_t head_dim) {
  std::vector<double> inverse(static_cast<size_t>(head_dim / 2));
  for (size_t i = 0; i < inverse.size(); ++i) {
    inverse[i] = std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(head_dim));
  }
  return inverse;
}

// The growing theta of dynamic NTK scaling: follows the sequence beyond the original length.
double dynamic_theta(const RopeSettings& rope, int64_t head_dim, int64_t sequence_length) {
  const double original = static_cast<double>(rope.original_length), d = static_cast<double>(head_dim);
  const double length = std::max(static_cast<double>(sequence_length), original);
  return rope.theta * std::pow(rope.factor * length / original - (rope.factor - 1.0), d / (d - 2.0));
}

double yarn_scale(double factor, double m) {
  return factor <= 1.0 ? 1.0 : 0.1 * m * std::log(factor) + 1.0;
}

// YaRN (arXiv 2309.00071): pairs that turn more than beta_fast times in the original length stay, those that
// turn less than beta_slow times are interpolated, a ramp lies between.
RopeFrequencies yarn(const RopeSettings& rope, int64_t head_dim) {
  RopeFrequencies out{plain(rope.theta, head_dim), 1.0};
  const double d = static_cast<double>(head_dim), original = static_cast<double>(rope.original_length);
  const auto pair_turning = [&](double turns) {
    return d * std::log(original / (turns * 2.0 * std::numbers::pi)) / (2.0 * std::log(rope.theta));
  };
  double low = pair_turning(rope.beta_fast.value_or(32.0)), high = pair_turning(rope.beta_slow.value_or(1.0));
  if (rope.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, d - 1.0);
  if (low == high) high += 0.001;
  for (size_t i = 0; i < out.inverse.size(); ++i) {
    const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    out.inverse[i] = out.inverse[i] / rope.factor * ramp + out.inverse[i] * (1.0 - ramp);
  }
  out.attention = rope.attention_factor.value_or(own_attention_factor(rope));
  return out;
}

// LongRoPE (arXiv 2402.13753): one factor a pair, another set for sequences beyond the original length.
RopeFrequencies longrope(const RopeSettings& rope, int64_t head_dim, int64_t sequence_length) {
  RopeFrequencies out{plain(rope.theta, head_dim), 1.0};
  const std::vector<double>& by = sequence_length > rope.original_length ? rope.long_factor : rope.short_factor;
  for (size_t i = 0; i < out.inverse.size(); ++i) out.inverse[i] /= by[i];
  out.attention = rope.attention_factor.value_or(own_attention_factor(rope));
  return out;
}

// Llama 3.1: wavelengths beyond original/low_freq_factor are interpolated, below original/high_freq_factor
// kept.
RopeFrequencies llama3(const RopeSettings& rope, int64_t head_dim) {
  RopeFrequencies out{plain(rope.theta, head_dim), 1.0};
  const double original = static_cast<double>(rope.original_length);
  for (double& inverse : out.inverse) {
    const double wavelength = 2.0 * std::numbers::pi / inverse;
    if (wavelength > original / rope.low_freq_factor) {
      inverse /= rope.factor;
    } else if (wavelength >= original / rope.high_freq_factor) {
      const double t = (original / wavelength - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
      inverse = (1.0 - t) * inverse / rope.factor + t * inverse;
    }
  }
  return out;
}

bool all_positive(const std::vector<double>& values) {
  return std::all_of(values.begin(), values.end(), [](double v) { return std::isfinite(v) && v > 0.0; });
}

}  // namespace

std::string_view name_of(RopeType type) {
  return kNames[static_cast<size_t>(type)].second;
}

std::optional<RopeType> rope_type_of(std::string_view name) {
  if (name == "default") return RopeType::none;
  if (name == "su") return RopeType::longrope;
  for (const auto& [type, known] : kNames) {
    if (known == name) return type;
  }
  return std::nullopt;
}

std::string rope_type_list() {
  std::string list;
  for (const auto& [type, name] : kNames) list += (list.empty() ? "" : ", ") + std::string(name);
  return list;
}

std::string fault_of(const RopeSettings& rope, int64_t head_dim) {
  const auto positive = [](double v) { return std::isfinite(v) && v > 0.0; };
  if (head_dim < 4 || head_dim % 2 != 0)
    return fmt::format("the head dimension {} is not even and at least 4", head_dim);
  if (!std::isfinite(rope.theta) || rope.theta <= 1.0) return fmt::format("theta {} is not above 1", rope.theta);
  if (rope.original_length <= 0) return fmt::format("the original length {} is not positive", rope.original_length);
  if (!std::isfinite(rope.factor) || rope.factor < 1.0) return fmt::format("factor {} is not at least 1", rope.factor);
  if (rope.attention_factor && !positive(*rope.attention_factor)) {
    return fmt::format("attention_factor {} is not positive", *rope.attention_factor);
  }
  switch (rope.type) {
    case RopeType::none:
    case RopeType::linear:
    case RopeType::dynamic:
      return "";
    case RopeType::yarn: {
      const double fast = rope.beta_fast.value_or(32.0), slow = rope.beta_slow.value_or(1.0);
      if (!positive(fast) || !positive(slow) || fast < slow) {
        return fmt::format("beta_fast {} and beta_slow {} are not in order", fast, slow);
      }
      for (const auto& m : {rope.mscale, rope.mscale_all_dim}) {
        if (m && !(std::isfinite(*m) && *m >= 0.0)) return fmt::format("mscale {} is negative", *m);
      }
      return "";
    }
    case RopeType::longrope:
      for (const auto* list : {&rope.short_factor, &rope.long_factor}) {
        const char* name = list == &rope.short_factor ? "short_factor" : "long_factor";
        if (static_cast<int64_t>(list->size()) != head_dim / 2) {
          return fmt::format("{} has {} numbers, half of the head dimension {} is needed", name, list->size(),
                             head_dim);
        }
        if (!all_positive(*list)) return fmt::format("{} has a number that is not positive", name);
      }
      if (rope.original_length < 2) return "the original length must be at least 2";
      return "";
    case RopeType::llama3:
      if (!positive(rope.low_freq_factor) || !(rope.high_freq_factor > rope.low_freq_factor) ||
          !std::isfinite(rope.high_freq_factor)) {
        return fmt::format("low_freq_factor {} and high_freq_factor {} are not in order", rope.low_freq_factor,
                           rope.high_freq_factor);
      }
      return "";
  }
  return "";
}

double own_attention_factor(const RopeSettings& rope) {
  if (rope.type == RopeType::yarn) {
    if (rope.mscale.value_or(0.0) != 0.0 && rope.mscale_all_dim.value_or(0.0) != 0.0)
      return yarn_scale(rope.factor, *rope.mscale) / yarn_scale(rope.factor, *rope.mscale_all_dim);
    return yarn_scale(rope.factor, 1.0);
  }
  if (rope.type == RopeType::longrope && rope.factor > 1.0)
    return std::sqrt(1.0 + std::log(rope.factor) / std::log(static_cast<double>(rope.original_length)));
  return 1.0;
}

RopeFrequencies frequencies(const RopeSettings& rope, int64_t head_dim, int64_t sequence_length) {
  switch (rope.type) {
    case RopeType::none:
      break;
    case RopeType::linear: {
      RopeFrequencies out{plain(rope.theta, head_dim), 1.0};
      for (double& inverse : out.inverse) inverse /= rope.factor;
      return out;
    }
    case RopeType::dynamic:
      return {plain(dynamic_theta(rope, head_dim, sequence_length), head_dim), 1.0};
    case RopeType::yarn:
      return yarn(rope, head_dim);
    case RopeType::longrope:
      return longrope(rope, head_dim, sequence_length);
    case RopeType::llama3:
      return llama3(rope, head_dim);
  }
  return {plain(rope.theta, head_dim), 1.0};
}

double ntk_theta(double theta, double factor, int64_t head_dim) {
  const double d = static_cast<double>(head_dim);
  return theta * std::pow(factor, d / (d - 2.0));
}

double dynamic_frozen_theta(double theta, double factor, double ratio, int64_t head_dim) {
  return ntk_theta(theta, factor * ratio - (factor - 1.0), head_dim);
}

double scaling_law_theta(double theta, double original, double length) {
  constexpr double kTurn = 2.0 * std::numbers::pi;
  return std::pow(theta, std::log(length / kTurn) / std::log(original / kTurn));
}

}  // namespace longlora::model

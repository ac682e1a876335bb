#include "core/model/extend.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "core/base/error.h"

namespace longlora::model {
namespace {

constexpr const char* kArrow = "\u2192";

// Options written in the recipe, and those that a law has: what would be ignored is refused.
void check_options(const recipe::Rope& wish) {
  static const std::map<std::string, std::set<std::string>> kOptions = {
      {"model", {"theta"}},
      {"none", {"theta"}},
      {"linear", {"factor", "theta"}},
      {"ntk", {"factor"}},
      {"dynamic-frozen", {"factor"}},
      {"scaling-law", {}},
      {"dynamic", {"factor", "theta"}},
      {"yarn",
       {"factor", "theta", "attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate"}},
      {"longrope", {"factor", "theta", "attention_factor", "short_factor", "long_factor"}},
      {"llama3", {"factor", "theta", "low_freq_factor", "high_freq_factor"}},
  };
  const auto known = kOptions.find(wish.type);
  if (known == kOptions.end()) {
    usage_error("context.rope.type '{}' is unknown; known are model, ntk, dynamic-frozen, scaling-law, {}", wish.type,
                rope_type_list());
  }
  const std::vector<std::pair<const char*, bool>> given = {{"factor", wish.factor.has_value()},
                                                           {"theta", wish.theta.has_value()},
                                                           {"attention_factor", wish.attention_factor.has_value()},
                                                           {"beta_fast", wish.beta_fast.has_value()},
                                                           {"beta_slow", wish.beta_slow.has_value()},
                                                           {"mscale", wish.mscale.has_value()},
                                                           {"mscale_all_dim", wish.mscale_all_dim.has_value()},
                                                           {"truncate", !wish.truncate},
                                                           {"short_factor", !wish.short_factor.empty()},
                                                           {"long_factor", !wish.long_factor.empty()},
                                                           {"low_freq_factor", wish.low_freq_factor.has_value()},
                                                           {"high_freq_factor", wish.high_freq_factor.has_value()}};
  for (const auto& [name, there] : given) {
    if (there && !known->second.contains(name)) {
      usage_error("context.rope.{} has no meaning with context.rope.type '{}'", name, wish.type);
    }
  }
}

std::string describe(const RopeSettings& rope) {
  if (rope.type == RopeType::none) return fmt::format("no scaling, theta {:.10g}", rope.theta);
  return fmt::format("{}, factor {:.10g}", name_of(rope.type), rope.factor);
}

// The model's own settings, perhaps with another theta.
Extension keep(const Config& config, const recipe::Rope& wish, int64_t length) {
  Extension out{config, length, ""};
  if (wish.theta) {
    out.config.rope.theta = *wish.theta;
    // The laws that take their factor or their original length from max_position_embeddings, here or in some reader, keep it.
    const RopeType own = config.rope.type;
    const bool free = own == RopeType::none || own == RopeType::linear || own == RopeType::llama3;
    if (free) out.config.max_positions = std::max(config.max_positions, length);
    if (out.config.rope.type == RopeType::none) out.config.rope.original_length = out.config.max_positions;
  }
  const int64_t covered = out.config.covered_length();
  if (length > covered) {
    usage_error(
        "context.length {} is beyond the {} tokens that the model's RoPE settings cover ({}); choose "
        "context.rope.type: {}",
        length, covered, describe(config.rope),
        config.rope.type == RopeType::none
            ? std::string(
                  "linear (as LongLoRA), ntk, dynamic-frozen, scaling-law, dynamic, yarn, longrope, llama3, or set "
                  "context.rope.theta")
            : fmt::format("{} with a greater factor", name_of(config.rope.type)));
  }
  out.description = fmt::format("the model's own: {} ({} tokens)", describe(out.config.rope), covered);
  return out;
}

// The factor asked for, or the one that `length` needs.
double total_factor(const Config& config, const recipe::Rope& wish, int64_t length) {
  const double original = static_cast<double>(config.rope.original_length);
  const double needed = static_cast<double>(length) / original;
  const double own = config.rope.type == RopeType::none ? 1.0 : config.rope.factor;
  if (!wish.factor) {
    const double factor = wish.type == "linear" ? std::ceil(needed) : needed;
    if (factor < own) {
      usage_error(
          "context.length {} is {:.4g} times the {} tokens of pre-training, below the model's own factor {:.10g}; if "
          "its config.json gives the wrong length there, set original_max_position_embeddings",
          length, needed, config.rope.original_length, own);
    }
    return std::max(factor, 1.0);
  }
  if (*wish.factor < own) {
    usage_error(
        "context.rope.factor {:.10g} is below the model's own factor {:.10g}; factors count from the {} tokens of "
        "pre-training, so twice its present context is factor {:.10g}",
        *wish.factor, own, config.rope.original_length, 2.0 * own);
  }
  // these reach beyond factor x original length by construction
  const bool bounded = wish.type != "dynamic" && wish.type != "llama3" && wish.type != "dynamic-frozen";
  if (bounded && *wish.factor * original < static_cast<double>(length) * (1.0 - 1e-9)) {
    usage_error(
        "context.rope.factor {:.10g} covers {:.0f} tokens, context.length asks for {}; use \"auto\" or "
        "{:.10g}",
        *wish.factor, *wish.factor * original, length, std::ceil(needed));
  }
  return *wish.factor;
}

// The theta of a plain model for `length` tokens, by one of the laws that raise it.
double raised_theta(const Config& config, const std::string& type, double factor, int64_t length) {
  const double theta = config.rope.theta, original = static_cast<double>(config.rope.original_length);
  const double wanted = static_cast<double>(length);
  if (type == "ntk") return ntk_theta(theta, factor, config.head_dim);
  if (type == "dynamic-frozen") return dynamic_frozen_theta(theta, factor, wanted / original, config.head_dim);
  return scaling_law_theta(theta, original, wanted);
}

// The recipe's options over those the model already has.
void take_options(const recipe::Rope& wish, RopeSettings& rope) {
  const auto take = [](std::optional<double>& to, const std::optional<double>& from) {
    if (from) to = from;
  };
  take(rope.attention_factor, wish.attention_factor);
  take(rope.beta_fast, wish.beta_fast);
  take(rope.beta_slow, wish.beta_slow);
  take(rope.mscale, wish.mscale);
  take(rope.mscale_all_dim, wish.mscale_all_dim);
  rope.truncate = rope.truncate && wish.truncate;
  if (!wish.short_factor.empty()) rope.short_factor = wish.short_factor;
  if (!wish.long_factor.empty()) rope.long_factor = wish.long_factor;
  rope.low_freq_factor = wish.low_freq_factor.value_or(rope.low_freq_factor);
  rope.high_freq_factor = wish.high_freq_factor.value_or(rope.high_freq_factor);
}

}  // namespace

Extension extend(const Config& config, const recipe::Rope& wish, int64_t length) {
  check_options(wish);
  if (length == 0) length = config.covered_length();
  if (length < 0) usage_error("context.length {} is negative", length);
  if (wish.type == "model") return keep(config, wish, length);

  const RopeType own = config.rope.type;
  const std::optional<RopeType> law = rope_type_of(wish.type);  // empty: one that raises theta
  if (own != RopeType::none && own != law) {
    usage_error(
        "the model's RoPE is scaled already ({}); context.rope.type '{}' on top of it is not defined. Choose "
        "'{}' with a greater factor{}",
        describe(config.rope), wish.type, name_of(own),
        own == RopeType::llama3 || own == RopeType::linear ? ", or 'model' with context.rope.theta" : "");
  }
  Extension out{config, length, ""};
  Config& c = out.config;
  const int64_t before = config.rope.original_length;
  if (wish.theta) c.rope.theta = *wish.theta;
  if (law == RopeType::none) {
    c.max_positions = c.rope.original_length = std::max(config.max_positions, length);
    out.description = fmt::format("{} ({} {} {})", describe(c.rope), before, kArrow, c.max_positions);
    return out;
  }
  if (!wish.factor && !wish.theta && length <= config.covered_length()) {
    RopeSettings asked = config.rope;
    take_options(wish, asked);
    if (asked != config.rope) {
      usage_error(
          "context.rope: the model covers the {} tokens already, so the options of '{}' would change nothing; give "
          "context.rope.factor, or leave them out",
          length, wish.type);
    }
    out.description =
        fmt::format("the model's own: {} (covers {} tokens already)", describe(c.rope), config.covered_length());
    return out;
  }
  const double factor = total_factor(config, wish, length);
  const int64_t reach = static_cast<int64_t>(static_cast<double>(before) * factor + 1e-6);
  if (!law) {
    c.rope.theta = raised_theta(config, wish.type, factor, length);
    c.max_positions = c.rope.original_length = wish.type == "ntk" ? reach : length;
    out.description = fmt::format("{}, theta {:.10g} {} {:.10g} ({} {} {})", wish.type, config.rope.theta, kArrow,
                                  c.rope.theta, before, kArrow, c.max_positions);
    return out;
  }
  if (own == law && config.rope.attention_factor && !wish.attention_factor && factor != config.rope.factor) {
    usage_error(
        "the model fixes its attention_factor at {:.10g} for factor {:.10g}; set "
        "context.rope.attention_factor "
        "for factor {:.10g}",
        *config.rope.attention_factor, config.rope.factor, factor);
  }
  c.rope.type = *law;
  // Readers that take the factor from the lengths must find the same one.
  const bool by_lengths = law == RopeType::yarn || law == RopeType::longrope;
  c.rope.factor = by_lengths ? static_cast<double>(reach) / static_cast<double>(before) : factor;
  take_options(wish, c.rope);
  // transformers takes max_position_embeddings as the original length of `dynamic`
  c.max_positions = law == RopeType::dynamic  ? before
                    : law == RopeType::llama3 ? std::max({config.max_positions, length, reach})
                                              : reach;
  if (const std::string fault = fault_of(c.rope, c.head_dim); !fault.empty()) {
    usage_error("context.rope: {}", fault);
  }
  out.description = fmt::format("{} ({} {} {})", describe(c.rope), before, kArrow, c.covered_length());
  return out;
}

}  // namespace longlora::model

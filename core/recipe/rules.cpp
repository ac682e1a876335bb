#include "core/recipe/rules.h"

#include <fmt/format.h>

#include "core/recipe/fields.h"

namespace longlora::recipe {
namespace {

using Broken = std::vector<BrokenRule>;

bool changed(const Recipe& recipe, const char* path) {
  const Field& field = *find_field(path);
  return value_of(field, recipe) != value_of(field, Recipe{});
}

// Keys that have no effect unless something else is chosen.
void without_effect(const Recipe& r, Broken& out) {
  const std::string& rope = r.context.rope.type;
  const bool lora = r.tune.mode == "lora", yarn = rope == "yarn", longrope = rope == "longrope",
             llama3 = rope == "llama3";
  const struct {
    const char* path;
    bool has_effect;
    const char* needs;
  } table[] = {
      {"model.adapter", !r.model.path.empty(), "model.path"},
      {"model.adapter", lora, "tune.mode lora"},
      {"model.stack_on", !r.model.path.empty(), "model.path"},
      {"model.stack_on", lora, "tune.mode lora (for full fine-tuning merge them first)"},
      {"model.quantize", lora, "tune.mode lora"},
      {"model.quantize", r.model.init.empty(), "model.path"},
      {"context.rope.factor", rope != "model" && rope != "none" && rope != "scaling-law",
       "a context.rope.type: linear, ntk, dynamic-frozen, dynamic, yarn, longrope or llama3"},
      {"context.rope.theta", rope != "ntk" && rope != "dynamic-frozen" && rope != "scaling-law",
       "a context.rope.type other than ntk, dynamic-frozen and scaling-law, which compute it"},
      {"context.rope.attention_factor", yarn || longrope, "context.rope.type yarn or longrope"},
      {"context.rope.beta_fast", yarn, "context.rope.type yarn"},
      {"context.rope.beta_slow", yarn, "context.rope.type yarn"},
      {"context.rope.mscale", yarn, "context.rope.type yarn"},
      {"context.rope.mscale_all_dim", yarn, "context.rope.type yarn"},
      {"context.rope.truncate", yarn, "context.rope.type yarn"},
      {"context.rope.short_factor", longrope, "context.rope.type longrope"},
      {"context.rope.long_factor", longrope, "context.rope.type longrope"},
      {"context.rope.low_freq_factor", llama3, "context.rope.type llama3"},
      {"context.rope.high_freq_factor", llama3, "context.rope.type llama3"},
      {"attention.finish", r.attention.pattern == "s2", "attention.pattern s2"},
      {"tune.rank", lora, "tune.mode lora"},
      {"tune.alpha", lora, "tune.mode lora"},
      {"tune.dropout", lora, "tune.mode lora"},
      {"tune.rslora", lora, "tune.mode lora"},
      {"tune.targets", lora, "tune.mode lora"},
      {"tune.also", lora, "tune.mode lora"},
      {"eval.every_steps", !r.data.valid.empty(), "data.valid"},
  };
  for (const auto& row : table) {
    if (!row.has_effect && changed(r, row.path)) out.push_back({row.path, fmt::format("needs {}", row.needs)});
  }
}

void contradictions(const Recipe& r, Broken& out) {
  const Attention& attention = r.attention;
  const Rope& rope = r.context.rope;
  const int64_t length = r.context.length;
  if (!r.model.path.empty() && !r.model.init.empty()) {
    out.push_back({"model.init", "model.path is given too; choose one"});
  }
  if (attention.group_size % 2 != 0) out.push_back({"attention.group_size", "must be even"});
  if (attention.pattern == "s2" && length > 0) {
    const auto group = static_cast<int64_t>(attention.group_ratio * static_cast<double>(length));
    if (attention.group_size > length) {
      out.push_back({"attention.group_size", fmt::format("is larger than context.length {}", length)});
    }
    if (attention.group_size == 0 && group < 2) {
      out.push_back({"attention.group_ratio", fmt::format("gives groups of {} tokens; at least 2 are needed", group)});
    }
  }
  if (!rope.short_factor.empty() && !rope.long_factor.empty() && rope.short_factor.size() != rope.long_factor.size()) {
    out.push_back({"context.rope.short_factor", "must have as many entries as context.rope.long_factor"});
  }
  if (r.tune.mode == "lora" && r.tune.targets.empty() && r.tune.also.empty()) {
    out.push_back({"tune.targets", "is empty, as is tune.also: nothing would be trained"});
  }
  if (r.batch.sequences % r.batch.micro != 0) {
    out.push_back(
        {"batch.micro", fmt::format("{} does not divide batch.sequences {}", r.batch.micro, r.batch.sequences)});
  }
  if (r.schedule.warmup_steps > r.schedule.steps) {
    out.push_back({"schedule.warmup_steps", fmt::format("is more than schedule.steps {}", r.schedule.steps)});
  }
}

void missing(const Recipe& r, Broken& out) {
  const std::string& rope = r.context.rope.type;
  if (r.model.path.empty() && r.model.init.empty()) {
    out.push_back(
        {"model.path", "is empty; name the base model's folder (or model.init to start from random weights)"});
  }
  if (r.data.train.empty()) out.push_back({"data.train", "is empty; name the files to train on"});
  if (r.checkpoint.dir.empty()) out.push_back({"checkpoint.dir", "is empty; name the folder of the run"});
  const bool by_length = !r.context.rope.factor || rope == "dynamic-frozen";
  if (rope != "model" && rope != "none" && by_length && r.context.length == 0) {
    out.push_back({"context.length", "is needed where context.rope.factor is \"auto\", and for dynamic-frozen"});
  }
}

}  // namespace

Broken broken_rules(const Recipe& recipe, Use use) {
  Broken out;
  without_effect(recipe, out);
  contradictions(recipe, out);
  if (use == Use::train) {
    for (const char* path : {"sft.format", "sft.too_long", "sft.empty"})
      if (changed(recipe, path)) out.push_back({path, "has no effect in 'longlora train'; it is for 'longlora sft'"});
  }
  if (use != Use::show) {
    missing(recipe, out);
    for (BrokenRule& rule : not_yet(recipe)) out.push_back(std::move(rule));
  }
  return out;
}

Broken not_yet(const Recipe& r) {
  Broken out;
  const auto refuse = [&](bool asked, const char* path, const char* instead) {
    if (asked) out.push_back({path, fmt::format("this build of longlora cannot do that; only {}", instead)});
  };
  refuse(r.model.quantize != "none", "model.quantize", "none");
  refuse(r.model.dtype == "float16", "model.dtype",
         "bfloat16 or float32 in training (float16 would need loss scaling)");
  refuse(r.memory.offload != "none", "memory.offload", "none");
  return out;
}

}  // namespace longlora::recipe

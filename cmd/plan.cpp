// `longlora plan`: what a run will take, before anything is allocated, without a GPU and without the weights.
#include <fmt/ranges.h>

#include <nlohmann/json.hpp>

#include "cmd/model_options.h"
#include "cmd/verb.h"
#include "core/base/memory.h"
#include "core/base/progress.h"
#include "core/model/compute.h"
#include "core/model/extend.h"
#include "core/model/shapes.h"
#include "core/recipe/read.h"
#include "core/recipe/rules.h"
#include "core/train/setup.h"
#include "core/train/step_cost.h"
#include "core/train/this_cpu.h"

namespace longlora::cmd {
namespace {

using train::MemoryPlan, train::Shard, train::SpreadPlan, train::StepCost;

std::string bytes(int64_t n) {
  return format_bytes(static_cast<double>(n));
}

int64_t positive(const cxxopts::ParseResult& arguments, const char* option) {
  const auto value = arguments[option].as<int64_t>();
  if (value < 1 || value > 100'000) usage_error("plan: --{} {}: must be from 1 to 100000", option, value);
  return value;
}

model::Config config_of(const recipe::Recipe& recipe, const cxxopts::ParseResult& arguments) {
  if (arguments.count("shape") > 0) return model::config_of_shape(arguments["shape"].as<std::string>());
  const std::string& folder = recipe.model.path.empty() ? recipe.model.init : recipe.model.path;
  if (folder.empty()) usage_error("plan: the recipe names no model; give model.path=DIR, or --shape NAME");
  if (!fs::exists(folder)) {
    input_error("{}: no such folder; plan without it by --shape, one of {}", folder,
                fmt::join(model::shape_names(), ", "));
  }
  return model::read_config(folder);
}

// What is asked of the planner beside the recipe.
struct Machine {
  train::Gpu gpu;
  int64_t gpus, nodes;
  bool measured;  // this machine's CPU
  [[nodiscard]] int64_t ranks() const { return gpus * nodes; }
  [[nodiscard]] const char* unit() const { return measured ? "rank" : "GPU"; }
  [[nodiscard]] int64_t memory() const {
    return measured ? gpu.memory / gpus : static_cast<int64_t>(train::kUsable * static_cast<double>(gpu.memory));
  }
};

// The GPU of that name, or this machine's CPU, for which the recipe's dtype is chosen as a run would choose it.
Machine machine_of(const cxxopts::ParseResult& arguments, const model::Config& config, recipe::Recipe& recipe) {
  const std::string name = arguments["gpu"].as<std::string>();
  if (name != "cpu") {
    if (recipe.model.dtype == "auto") recipe.model.dtype = "bfloat16";  // what GPUs compute fastest
    if (recipe.model.dtype == "stored") recipe.model.dtype = model::name_of(model::stored_dtype(config.dtype));
    return {train::find_gpu(name), positive(arguments, "gpus"), positive(arguments, "nodes"), false};
  }
  const int64_t ranks = arguments.count("gpus") > 0 ? positive(arguments, "gpus") : 1;
  if (arguments.count("nodes") > 0) usage_error("plan: --gpu cpu is this machine alone; --nodes belongs to GPUs");
  const auto fits = [&](at::ScalarType type) {
    recipe::Recipe changed = recipe;
    changed.model.dtype = model::name_of(type);
    return train::plan_spread(config, changed, ranks, available_memory() / ranks).memory.fits;
  };
  const model::Compute compute = model::choose_compute(recipe.model.dtype, config.dtype, at::kCPU, fits);
  recipe.model.dtype = model::name_of(compute.dtype);
  return {train::shared(train::this_cpu(compute, config.head_dim), ranks), ranks, 1, true};
}

SpreadPlan plan_memory(const model::Config& config, const recipe::Recipe& recipe, const Machine& machine) {
  return train::plan_spread(config, recipe, machine.ranks(), machine.memory());
}

// The changes of one key that would make it fit.
std::vector<std::string> remedies(const model::Config& config, const recipe::Recipe& recipe, const Machine& machine) {
  std::vector<std::string> found;
  const auto attempt = [&](const recipe::Recipe& changed, const std::string& text) {
    if (plan_memory(config, changed, machine).memory.fits) found.push_back(text);
  };
  recipe::Recipe changed = recipe;
  changed.memory.recompute = "auto";
  if (recipe.memory.recompute != "auto") attempt(changed, "memory.recompute=auto");
  changed = recipe;
  changed.batch.micro = 1;
  if (recipe.batch.micro > 1) attempt(changed, "batch.micro=1");
  changed = recipe;
  changed.parallel.shard = "auto";
  if (recipe.parallel.shard != "auto") attempt(changed, "parallel.shard=auto");
  for (int64_t sequence = 2 * recipe.parallel.sequence; sequence <= machine.ranks() && found.empty(); sequence *= 2) {
    changed = recipe;
    changed.memory.recompute = "auto";
    changed.parallel = {.shard = "auto", .sequence = sequence};
    const bool possible = config.sliding_window == 0 && recipe.context.length >= 2 * sequence;
    if (possible && machine.ranks() % sequence == 0) attempt(changed, fmt::format("parallel.sequence={}", sequence));
  }
  changed = recipe;
  changed.model.quantize = "nf4";
  if (recipe.model.quantize == "none" && recipe.tune.mode == "lora" && found.empty()) {
    attempt(changed, "model.quantize=nf4");
  }
  return found;
}

nlohmann::ordered_json json_of(const StepCost& c) {
  const train::Flops& f = c.flops;
  return {
      {"seconds", c.seconds},
      {"tokens_per_s", c.tokens_per_s},
      {"mfu", c.mfu},
      {"hfu", c.hfu},
      {"micro_batches", c.micro_batches},
      {"seconds_of",
       {{"products", c.products},
        {"attention", c.attention},
        {"elementwise", c.elementwise},
        {"optimizer", c.optimizer},
        {"gradients", c.gradients},
        {"sequence", c.sequence},
        {"weights_waited", c.weights_waited},
        {"weights", c.weights}}},
      {"flops_of_a_micro_batch",
       {{"forward", f.forward},
        {"input_gradients", f.input_gradients},
        {"trained_gradients", f.trained_gradients},
        {"recompute", f.recompute},
        {"head", f.head},
        {"attention_forward", f.attention_forward},
        {"attention_backward", f.attention_backward},
        {"attention_again", f.attention_again}}},
      {"bytes_sent", {{"gradients", c.sent.gradients}, {"weights", c.sent.weights}, {"sequence", c.sent.sequence}}}};
}

void print_memory(const SpreadPlan& planned, const Machine& machine, const std::vector<std::string>& ways) {
  const MemoryPlan& m = planned.memory;
  fmt::print("\nmemory of a {}\n", machine.unit());
  const auto row = [](const char* what, int64_t n, const std::string& note) {
    fmt::print("  {:<22} {:>10}  {}\n", what, bytes(n), note);
  };
  row("weights", m.weights, planned.spread.shard == Shard::model ? "this rank's share, and what is gathered" : "");
  row("trained", m.trained, "master copies, gradients, moments");
  row("kept for backward", m.activations, "recompute: " + train::describe(m.recompute));
  row("work", m.work, fmt::format("one layer's, or the head's ({})", bytes(m.head)));
  row("total", m.total(),
      fmt::format("of {} that can be used: {}", bytes(machine.memory()), m.fits ? "fits" : "DOES NOT FIT"));
  if (m.fits) return;
  const char* no_way = machine.measured
                           ? "no single key makes it fit: more memory, or a shorter context.length"
                           : "no single key makes it fit: more GPUs, larger ones, or a shorter context.length";
  fmt::print("  {}\n", ways.empty() ? no_way : fmt::format("would fit with: {}", fmt::join(ways, ", or ")));
}

std::string flop(double count) {
  if (count >= 1e12) return fmt::format("{:.0f} TFLOP", count / 1e12);
  return fmt::format("{:.2g} {}FLOP", count < 1e9 ? count / 1e6 : count / 1e9, count < 1e9 ? 'M' : 'G');
}

void print_cost(const StepCost& c, const char* title) {
  fmt::print("\n{}\n", title);
  const auto row = [&](const char* what, double seconds, const std::string& note) {
    fmt::print("  {:<22} {:>9.3f} s  {:>3.0f}%  {}\n", what, seconds, 100 * seconds / c.seconds, note);
  };
  const double micro = static_cast<double>(c.micro_batches);
  row("matrix products", c.products,
      flop(c.flops.products() * micro) +
          (c.flops.recompute > 0 ? fmt::format(", {} of them computed again", flop(c.flops.recompute * micro)) : ""));
  row("attention", c.attention, flop(c.flops.attention() * micro));
  row("norms, RoPE, SwiGLU", c.elementwise, "by memory bandwidth");
  row("optimizer", c.optimizer, "");
  const bool by_unit = c.sent.gradients > 0 && c.gradients == 0;  // tune.mode full, the model split
  if (c.gradients > 0) row("gradients", c.gradients, format_bytes(c.sent.gradients) + " sent, waited for");
  if (c.sent.sequence > 0) row("keys and values", c.sequence, format_bytes(c.sent.sequence) + ", waited for");
  if (c.sent.weights > 0) {
    row("weights", c.weights_waited,
        fmt::format("{} gathered{} in {:.3f} s, beside the arithmetic", format_bytes(c.sent.weights),
                    by_unit ? fmt::format(", {} of gradients sent", format_bytes(c.sent.gradients)) : "", c.weights));
  }
  row("step", c.seconds,
      fmt::format("{} tokens/s, MFU {:.0f}%, HFU {:.0f}%", format_count(c.tokens_per_s), 100 * c.mfu, 100 * c.hfu));
}

std::string days(double seconds) {
  if (seconds < 120) return fmt::format("{:.1f} seconds", seconds);
  if (seconds < 7200) return fmt::format("{:.1f} minutes", seconds / 60);
  return seconds < 86400 ? fmt::format("{:.1f} hours", seconds / 3600) : fmt::format("{:.1f} days", seconds / 86400);
}

Exit run(const cxxopts::ParseResult& arguments) {
  const std::vector<std::string>& words = arguments.unmatched();
  if (words.empty()) usage_error("plan: which recipe? usage: longlora plan RECIPE [key=value ...]");
  recipe::Recipe recipe = recipe::read(words.front(), std::span(words).subspan(1), recipe::Use::show);
  const auto json = output_file(arguments, "json");
  const model::Extension extension =
      model::extend(config_of(recipe, arguments), recipe.context.rope, recipe.context.length);
  const model::Config& config = extension.config;
  recipe.context.length = extension.length;
  const Machine machine = machine_of(arguments, config, recipe);
  const int64_t ranks = machine.ranks(), sequence = recipe.parallel.sequence;
  if (ranks % sequence != 0)
    usage_error("parallel.sequence {}: does not divide the {} {}s", sequence, ranks, machine.unit());
  train::check_sequence(recipe, config);
  if (recipe.memory.offload != "none") usage_error("plan: memory.offload {}: cannot be planned", recipe.memory.offload);

  const SpreadPlan planned = plan_memory(config, recipe, machine);
  const MemoryPlan& memory = planned.memory;
  const std::vector<std::string> ways = memory.fits ? std::vector<std::string>{} : remedies(config, recipe, machine);
  const int64_t group = train::group_of(recipe);
  const auto cost_of = [&](int64_t tokens) {
    return train::step_cost(config, recipe, memory, planned.spread, machine.gpu, machine.gpus, tokens);
  };
  const StepCost cost = cost_of(group), full = cost_of(0);
  const double finish = group > 0 ? recipe.attention.finish : 0;
  const double steps = static_cast<double>(recipe.schedule.steps);
  const double whole = steps * ((1 - finish) * cost.seconds + finish * full.seconds);
  const train::Counts counts = train::count_parameters(config, recipe.tune);
  const auto cannot = recipe::not_yet(recipe);
  const int64_t idle = std::max<int64_t>(0, ranks / sequence - recipe.batch.sequences) * sequence;

  if (json != "-") {
    fmt::print("{} x {}{}: {} parameters, {} trained; {} tokens, {}, in {}\n", ranks, machine.gpu.title,
               machine.nodes > 1 ? fmt::format(" on {} nodes", machine.nodes) : "",
               format_count(static_cast<double>(counts.all())), format_count(static_cast<double>(counts.trained)),
               recipe.context.length, group > 0 ? fmt::format("S2 groups of {}", group) : "full attention",
               recipe.model.dtype);
    fmt::print("{} rows a step, {} a row; micro-batches of {}, {} of them a step; shard: {}\n", recipe.batch.sequences,
               fmt::format("{} {}{}", sequence, machine.unit(), sequence == 1 ? "" : "s"), recipe.batch.micro,
               cost.micro_batches, train::to_string(planned.spread.shard));
    if (idle > 0)
      fmt::print("{} {}s have nothing to do: more batch.sequences or parallel.sequence\n", idle, machine.unit());
    print_memory(planned, machine, ways);
    print_cost(cost, group > 0 ? "time of a step with S2-Attn" : "time of a step");
    if (finish > 0) print_cost(full, "time of a step with full attention (attention.finish)");
    fmt::print("\n{} steps: {}\n", recipe.schedule.steps, days(whole));
    fmt::print("{}\n",
               machine.measured
                   ? fmt::format("An estimate from the rates that this machine has now ({}).", recipe.model.dtype)
                   : "An estimate from published rates of these GPUs (docs/plan.md); nothing was measured.");
    for (const auto& rule : cannot) fmt::print("{}: {}\n", rule.path, rule.what);
  }
  if (json) {
    nlohmann::ordered_json recompute = nlohmann::ordered_json::array();
    for (const auto policy : memory.recompute) recompute.push_back(train::to_string(policy));
    nlohmann::ordered_json out = {{"gpu", machine.gpu.name},
                                  {"gpus", machine.gpus},
                                  {"nodes", machine.nodes},
                                  {"dtype", recipe.model.dtype},
                                  {"parameters", counts.all()},
                                  {"trained_parameters", counts.trained},
                                  {"context", recipe.context.length},
                                  {"group", group},
                                  {"shard", train::to_string(planned.spread.shard)},
                                  {"sequence", sequence},
                                  {"memory",
                                   {{"weights", memory.weights},
                                    {"trained", memory.trained},
                                    {"activations", memory.activations},
                                    {"work", memory.work},
                                    {"head", memory.head},
                                    {"total", memory.total()},
                                    {"available", machine.memory()},
                                    {"fits", memory.fits},
                                    {"recompute", recompute}}},
                                  {"remedies", ways},
                                  {"step", json_of(cost)},
                                  {"run_seconds", whole}};
    if (finish > 0) out["step_full_attention"] = json_of(full);
    write_result(*json, out.dump(2));
  }
  return Exit::done;
}

}  // namespace

Verb plan_verb() {
  return {"plan",
          "memory by component and time per step, before anything is allocated",
          "RECIPE [key=value ...]",
          "Needs neither a GPU nor the weights: the model's config.json, or --shape where its folder is not there.\n"
          "Times are estimates from published rates of the GPUs, or with --gpu cpu from this machine's measured\n"
          "rates; how they are made: docs/plan.md.\n\n"
          "  longlora plan longlora-7b-32k --shape llama-2-7b --gpu a100-80 --gpus 8\n"
          "  longlora plan my.json context.length=262144 parallel.sequence=8 --gpu h200 --nodes 2",
          [](cxxopts::Options& options) {
            options.add_options()(
                "gpu", "a100-40, a100-80, h100 or h200; or cpu: this machine, measured (--gpus: its ranks, 1)",
                cxxopts::value<std::string>()->default_value("a100-80"),
                "NAME")("gpus", "GPUs of a node", cxxopts::value<int64_t>()->default_value("8"), "N")(
                "nodes", "nodes", cxxopts::value<int64_t>()->default_value("1"), "M")(
                "shape", "a known model instead of the recipe's folder: llama-2-7b, llama-3-8b, ...",
                cxxopts::value<std::string>(),
                "NAME")("json", "all numbers as JSON", cxxopts::value<std::string>(), "FILE|-");
          },
          run};
}

}  // namespace longlora::cmd

#include "core/train/summary.h"

#include <map>

#include "core/base/log.h"
#include "core/base/progress.h"
#include "core/base/version.h"
#include "core/model/device.h"
#include "core/train/step_cost.h"
#include "core/train/this_cpu.h"

namespace longlora::train {
namespace {

std::string trained_line(model::Llama& llama) {
  static const std::map<model::Kind, const char*> names = {{model::Kind::base, "weights"},
                                                           {model::Kind::lora, "LoRA"},
                                                           {model::Kind::embed, "embedding"},
                                                           {model::Kind::norm, "norms"},
                                                           {model::Kind::lm_head, "head"}};
  std::map<model::Kind, int64_t> counts;
  int64_t trained = 0, all = 0;
  for (const model::Parameter* p : llama.parameters()) {
    if (p->kind != model::Kind::lora) all += p->value.numel();
    if (!p->trainable()) continue;
    counts[p->kind] += p->value.numel();
    trained += p->value.numel();
  }
  std::string line = fmt::format("{} of {} parameters ({:.2f}%):", format_count(static_cast<double>(trained)),
                                 format_count(static_cast<double>(all)),
                                 100.0 * static_cast<double>(trained) / static_cast<double>(all));
  for (const auto& [kind, count] : counts)
    line += fmt::format(" {} {}", names.at(kind), format_count(static_cast<double>(count)));
  return line;
}

std::string attention_line(const Setup& setup) {
  const recipe::Attention& attention = setup.recipe.attention;
  if (setup.group() == 0) return "full";
  std::string line =
      fmt::format("S2, groups of {} tokens (half of the heads shifted by {})", setup.group(), setup.group() / 2);
  if (attention.finish > 0) line += fmt::format("; the last {:.0f}% of the steps full", 100 * attention.finish);
  return line;
}

// What the steps that are left will take, by the rates that this machine has just now.
std::string time_line(const Setup& setup, int64_t done, const dist::Launch& launch) {
  const recipe::Recipe& r = setup.recipe;
  const Gpu cpu = this_cpu(setup.compute, setup.extension.config.head_dim);
  const Spread spread{.ranks = launch.size, .sequence = r.parallel.sequence, .shard = setup.shard};
  const auto cost_of = [&](int64_t group) {
    return step_cost(setup.extension.config, r, setup.memory, spread, cpu, launch.local_size, group);
  };
  int64_t grouped = 0;
  for (int64_t step = done; step < r.schedule.steps; ++step) grouped += setup.grouped(step) ? 1 : 0;
  const int64_t full = r.schedule.steps - done - grouped;
  const StepCost first = cost_of(setup.grouped(done) ? setup.group() : 0);
  const double seconds = (grouped > 0 ? static_cast<double>(grouped) * cost_of(setup.group()).seconds : 0) +
                         (full > 0 ? static_cast<double>(full) * cost_of(0).seconds : 0);
  const std::string each = first.seconds < 10 ? fmt::format("{:.2g} s", first.seconds) : format_duration(first.seconds);
  return fmt::format("about {} for {} steps: {} and {} tokens/s each, by this machine's measured rates",
                     format_duration(seconds), grouped + full, each, format_count(first.tokens_per_s));
}

}  // namespace

void print_summary(const Setup& setup, int64_t resumed_step, const dist::Launch& launch) {
  const recipe::Recipe& r = setup.recipe;
  const MemoryPlan& memory = setup.memory;
  const auto bytes = [](int64_t n) { return format_bytes(static_cast<double>(n)); };
  log::info("{}, {}", version_line(), model::describe_device(setup.device));
  log::info("  model      {}, {}, {}", r.model.path.empty() ? r.model.init + " (random weights)" : r.model.path,
            setup.extension.config.architecture, model::describe(setup.compute));
  log::info("  context    {} tokens; RoPE {}", r.context.length, setup.extension.description);
  log::info("  attention  {}", attention_line(setup));
  log::info("  trained    {}", trained_line(*setup.llama));
  log::info("  data       {}", setup.rows->report().line());
  log::info("  a step     {} sequences, {} tokens, in micro-batches of {}", r.batch.sequences,
            format_count(static_cast<double>(r.batch.sequences * r.context.length)), r.batch.micro);
  if (!launch.alone()) {
    const char* cut = setup.shard == Shard::none        ? ""
                      : setup.shard == Shard::optimizer ? "; the optimizer is cut up over them"
                                                        : "; the model is cut up over them";
    const int64_t shared = r.parallel.sequence, shares = launch.size / shared;  // of the step's sequences
    log::info("  ranks      {}, {} of them on this machine{}; {}{} sequences of a step each", launch.size,
              launch.local_size, cut, shared > 1 ? fmt::format("{} to a row, ", shared) : "",
              r.batch.sequences % shares == 0
                  ? fmt::format("{}", r.batch.sequences / shares)
                  : fmt::format("{} or {}", r.batch.sequences / shares, r.batch.sequences / shares + 1));
  }
  log::info("  steps      {}{}, lr {:g}, {}", r.schedule.steps,
            resumed_step > 0 ? fmt::format(" (going on after step {})", resumed_step) : "", r.optimizer.lr,
            r.schedule.type);
  log::info("  memory     about {}: weights {}, trained {}, kept for backward {}, work {}; recompute: {}",
            bytes(memory.total()), bytes(memory.weights), bytes(memory.trained), bytes(memory.activations),
            bytes(memory.work), describe(memory.recompute));
  if (setup.device.is_cpu() && launch.first()) log::info("  time       {}", time_line(setup, resumed_step, launch));
}

}  // namespace longlora::train

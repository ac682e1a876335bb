// `longlora train`: continued pre-training on long text.
#include <unordered_set>

#include "cmd/rank_options.h"
#include "cmd/verb.h"
#include "core/base/signal.h"
#include "core/recipe/read.h"
#include "core/train/trainer.h"

namespace longlora::cmd {
namespace {

void declare(cxxopts::Options& options) {
  options.add_options()("resume", "go on from the newest checkpoint in checkpoint.dir");
  declare_rank_options(options);
}

Exit run(const cxxopts::ParseResult& arguments) {
  ignore_closed_pipes();
  const std::vector<std::string>& words = arguments.unmatched();
  if (words.empty()) usage_error("train: which recipe? usage: longlora train RECIPE [key=value ...]");
  const recipe::Recipe recipe = recipe::read(words.front(), std::span(words).subspan(1), recipe::Use::train);
  return run_ranks(
      arguments,
      [&](dist::Job& job) { return train::train(recipe, arguments.count("resume") > 0, recipe::Use::train, job); },
      [&](const dist::Launch& launch) { train::check_ranks(recipe, launch); });
}

}  // namespace

Verb train_verb() {
  return {"train",
          "continue pre-training on long text: LoRA + embedding + norms, LoRA, or full",
          "RECIPE [key=value ...]",
          "RECIPE is a JSON file with comments or the name of a shipped one ('longlora recipe ls').\n"
          "Any key can be overridden: longlora train my.json optimizer.lr=1e-4 context.length=16384\n"
          "On several processes: longlora train my.json --nproc 4, or by torchrun, srun, mpirun (docs/parallel.md).\n"
          "Writes under checkpoint.dir: metrics.jsonl, recipe.resolved.json, step-N/ checkpoints, TensorBoard events\n"
          "and, at the end, final/ (the adapter, or the model with tune.mode full). Ctrl-C saves and exits with 75,\n"
          "a second one ends without saving.",
          declare,
          run};
}

}  // namespace longlora::cmd

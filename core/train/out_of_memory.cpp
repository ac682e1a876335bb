#include "core/train/out_of_memory.h"

#include <c10/util/Exception.h>

#include <new>

#include "core/base/error.h"
#include "core/base/progress.h"
#include "core/recipe/rules.h"

namespace longlora::train {
namespace {

std::string bytes(int64_t n) {
  return format_bytes(static_cast<double>(n));
}

// What this build can do of what would help, the cheapest first.
std::string remedies(const MemoryPlan& plan, const recipe::Recipe& recipe, int ranks) {
  std::string text;
  const auto add = [&](const std::string& one) { text += (text.empty() ? "" : ", ") + one; };
  const auto possible = [&](auto change) {
    recipe::Recipe changed = recipe;
    change(changed);
    return recipe::not_yet(changed).size() <= recipe::not_yet(recipe).size();
  };
  if (recipe.batch.micro > 1) add("a smaller batch.micro");
  if (plan.recompute.empty() || plan.recompute.front() != model::Recompute::everything)
    add("memory.recompute=everything");
  if (ranks == 1) {
    add("several ranks (docs/parallel.md)");
  } else {
    if (recipe.parallel.shard != "model") add("parallel.shard=model");
    if (recipe.parallel.sequence < ranks) add("a larger parallel.sequence");
  }
  if (recipe.memory.offload == "none" && possible([](auto& r) { r.memory.offload = "activations"; }))
    add("memory.offload=activations");
  add("a shorter context.length");
  return text;
}

// LibTorch's allocator for main memory throws a plain c10::Error.
bool is_out_of_memory(const c10::Error& error) {
  return dynamic_cast<const c10::OutOfMemoryError*>(&error) != nullptr ||
         error.msg().find("can't allocate memory") != std::string::npos;
}

}  // namespace

std::string out_of_memory_message(const MemoryPlan& plan, const recipe::Recipe& recipe, int ranks,
                                  const std::string& where, const std::string& reason) {
  return fmt::format(
      "{}: out of memory{}. Planned were {}: weights {}, trained {}, kept for backward {} (recompute: {}), work {}. "
      "Less is "
      "needed with {}; 'longlora plan' shows how much",
      where, reason.empty() ? "" : " (" + reason + ")", bytes(plan.total()), bytes(plan.weights), bytes(plan.trained),
      bytes(plan.activations), describe(plan.recompute), bytes(plan.work), remedies(plan, recipe, ranks));
}

void naming_out_of_memory(const MemoryPlan& plan, const recipe::Recipe& recipe, int ranks,
                          const std::function<std::string()>& where, const std::function<void()>& work) {
  try {
    work();
  } catch (const std::bad_alloc&) {
    throw Error(Exit::failed, out_of_memory_message(plan, recipe, ranks, where(), ""));
  } catch (const c10::Error& error) {
    if (!is_out_of_memory(error)) throw;
    const std::string reason = error.msg();
    throw Error(Exit::failed, out_of_memory_message(plan, recipe, ranks, where(), reason.substr(0, reason.find('\n'))));
  }
}

}  // namespace longlora::train

// Running out of memory, said so that it helps: where, what was planned, and which keys make it less.
#pragma once
#include <functional>
#include <string>

#include "core/recipe/recipe.h"
#include "core/train/memory_plan.h"

namespace longlora::train {

// `where`: "step 3, forward and backward". `reason`: the allocator's words, or "".
[[nodiscard]] std::string out_of_memory_message(const MemoryPlan& plan, const recipe::Recipe& recipe, int ranks,
                                                const std::string& where, const std::string& reason);

// Does `work`; a failed allocation of LibTorch (on a GPU or the CPU) or of the C++ library becomes that message (exit 1).
// `where` is asked when it has happened.
void naming_out_of_memory(const MemoryPlan& plan, const recipe::Recipe& recipe, int ranks,
                          const std::function<std::string()>& where, const std::function<void()>& work);

}  // namespace longlora::train

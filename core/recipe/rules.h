// What no single value shows: keys that contradict one another, keys that would have no effect, what a
// training run cannot do without, and what this build cannot do yet. A run never differs from what was asked,
// so all of it is refused.
#pragma once
#include <string>
#include <vector>

#include "core/recipe/read.h"

namespace longlora::recipe {

struct BrokenRule {
  std::string path, what;
};

[[nodiscard]] std::vector<BrokenRule> broken_rules(const Recipe& recipe, Use use);

// Keys that are read and shown, but whose feature this build does not have.
[[nodiscard]] std::vector<BrokenRule> not_yet(const Recipe& recipe);

}  // namespace longlora::recipe

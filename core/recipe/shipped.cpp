#include "core/recipe/shipped.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "core/base/nearest.h"

namespace longlora::recipe {

const Shipped* find_shipped(const std::string& name) {
  for (const Shipped& one : shipped()) {
    if (name == one.name) return &one;
  }
  return nullptr;
}

std::string describe(const Shipped& recipe) {
  const std::string line(recipe.text, std::strcspn(recipe.text, "\n"));
  return line.substr(std::min(line.size(), line.find_first_not_of("/ ")));
}

std::string suggest_shipped(const std::string& name) {
  std::vector<std::string> names;
  for (const Shipped& one : shipped()) names.emplace_back(one.name);
  return did_you_mean(name, names);
}

}  // namespace longlora::recipe

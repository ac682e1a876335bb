#include "core/recipe/shipped.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "core/base/nearest.h"
#include "core/recipe/read.h"
#include "core/recipe/rules.h"

namespace longlora::recipe {

const Shipped* find_shipped(const std::string& name) {
  for (const Shipped& one : shipped()) {
    if (name == one.name) return &one;
  }
  return nullptr;
}

std::string describe(const Shipped& recipe) {
  const std::string line(recipe.text, std::strcspn(recipe.text, "\n"));
  std::string said = line.substr(std::min(line.size(), line.find_first_not_of("/ ")));
  std::string lacking;
  for (const BrokenRule& rule : not_yet(read_text(recipe.text, recipe.name, {}, Use::show)))
    lacking += (lacking.empty() ? "" : ", ") + rule.path;
  return lacking.empty() ? said : fmt::format("{} (not in this build yet: {})", said, lacking);
}

std::string suggest_shipped(const std::string& name) {
  std::vector<std::string> names;
  for (const Shipped& one : shipped()) names.emplace_back(one.name);
  return did_you_mean(name, names);
}

}  // namespace longlora::recipe

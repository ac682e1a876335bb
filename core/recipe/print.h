// A recipe written out: with every key, and what the keys are.
#pragma once
#include <string>

#include "core/recipe/recipe.h"

namespace longlora::recipe {

// Every key in the order of the structs, as JSON that reads back to the same recipe.
[[nodiscard]] std::string to_json(const Recipe& recipe);

// JSON Schema (draft 2020-12) of a recipe: types, ranges, choices, defaults and help, for editors.
[[nodiscard]] std::string schema();

// The reference page, docs/recipes.md.
[[nodiscard]] std::string reference_page();

}  // namespace longlora::recipe

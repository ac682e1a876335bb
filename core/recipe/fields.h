// The one table of a recipe's keys. Reading, overriding, validation, `recipe show`, `recipe schema` and the
// reference page are all loops over it; defaults are the initialisers in core/recipe/recipe.h and stand
// nowhere else.
#pragma once
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include <nlohmann/json.hpp>

#include "core/recipe/recipe.h"

namespace longlora::recipe {

// The place of one value in a Recipe; its type is the key's type. An empty std::optional is written "auto".
using Slot = std::variant<std::string*, bool*, int64_t*, double*, std::optional<double>*, std::vector<std::string>*,
                          std::vector<double>*>;

// What a value may be, beyond its type. For lists it holds for every entry.
struct Limits {
  std::vector<std::string> choices;  // empty: any text
  double low = -std::numeric_limits<double>::infinity(), high = std::numeric_limits<double>::infinity();
  bool low_open = false, high_open = false;  // the end itself is not allowed
  size_t entries = 0;                        // a list's exact length; 0: any
};

struct Field {
  std::string path;  // "context.rope.factor"
  Slot (*slot)(Recipe&);
  std::string help;  // one line
  Limits limits;
};

struct Section {
  std::string path, help;
};

[[nodiscard]] const std::vector<Field>& fields();      // in the order of the structs
[[nodiscard]] const std::vector<Section>& sections();  // in the same order; "" is the top level
[[nodiscard]] const Field* find_field(std::string_view path);
[[nodiscard]] bool is_section(std::string_view path);

// "integer", "number or \"auto\"", "list of text", ...
[[nodiscard]] std::string type_name(const Field& field);
// "at least 1", "s2 or full", "in [0, 1)", or "" where anything goes.
[[nodiscard]] std::string limits_text(const Limits& limits);

// What is wrong with a value, and in which entry of a list.
struct Wrong {
  std::string what;
  std::optional<size_t> entry;
};

// Checks type and limits and stores the value; a list of text may be given as one text. On a mistake nothing
// is stored.
[[nodiscard]] std::optional<Wrong> assign(const Field& field, Recipe& recipe, const nlohmann::json& value);
// The value as it is written in a recipe; whole numbers without a fraction.
[[nodiscard]] nlohmann::json value_of(const Field& field, const Recipe& recipe);

// ", did you mean 'optimizer.lr'?" for a key that does not exist, or "".
[[nodiscard]] std::string suggest_key(std::string_view path);

}  // namespace longlora::recipe

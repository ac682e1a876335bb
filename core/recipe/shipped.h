// The recipes of the folder recipes/, built into the program (scripts/cmake/EmbedRecipes.cmake), so that it
// needs no data folder.
#pragma once
#include <span>
#include <string>

namespace longlora::recipe {

struct Shipped {
  const char* name;  // the file's name without .json
  const char* text;
};

[[nodiscard]] std::span<const Shipped> shipped();
[[nodiscard]] const Shipped* find_shipped(const std::string& name);  // nullptr: none of that name
// What the first line, a comment, says of it; and which of its keys ask for what this build does not have.
[[nodiscard]] std::string describe(const Shipped& recipe);
// ", did you mean 'longlora-7b-8k'?" or "".
[[nodiscard]] std::string suggest_shipped(const std::string& name);

}  // namespace longlora::recipe

// From a file (or the name of a shipped recipe) and `key=value` overrides to a Recipe. Every mistake of the
// file, the overrides and the rules is reported in one go.
#pragma once
#include <span>
#include <string>
#include <string_view>

#include "core/recipe/recipe.h"

namespace longlora::recipe {

// What the recipe is read for: to be shown, or to train or fine-tune with it. These ask for more: a model, data, a
// folder, and nothing that this build cannot do or that has no effect there. Samples of sft are always packed whole, so
// data.packing is set to documents for it, and stream is a mistake.
enum class Use { show, train, sft };

// `file_or_name`: a JSON file with comments, or a shipped recipe's name. Exit 3 when there is neither; exit 2
// with one line a mistake, each "file:line: dotted.path: what is wrong, did you mean 'x'?" or "override
// 'x=y': ...". Overrides are applied from left to right; a value is read as JSON where it is JSON and as text
// otherwise.
[[nodiscard]] Recipe read(const std::string& file_or_name, std::span<const std::string> overrides = {},
                          Use use = Use::train);

// The same from text; `name` stands for the file in messages.
[[nodiscard]] Recipe read_text(std::string_view text, const std::string& name,
                               std::span<const std::string> overrides = {}, Use use = Use::train);

}  // namespace longlora::recipe

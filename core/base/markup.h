// Text inside HTML and SVG.
#pragma once
#include <string>
#include <string_view>

namespace longlora {

// With & < > " as entities, without the control characters that XML cannot hold (line breaks and tabs stay).
[[nodiscard]] std::string escape_markup(std::string_view text);

}  // namespace longlora

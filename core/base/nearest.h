// "Did you mean": the known name nearest to what was typed.
#pragma once
#include <span>
#include <string>
#include <string_view>

namespace longlora {

// The candidate with the smallest edit distance, or "" when none is near enough to be a likely slip
// (more than a third of the longer name's letters differ).
[[nodiscard]] std::string nearest_name(std::string_view typed, std::span<const std::string> candidates);

// ", did you mean 'x'?" or "".
[[nodiscard]] std::string did_you_mean(std::string_view typed, std::span<const std::string> candidates);

}  // namespace longlora

// Code points newer than the Unicode version of the libraries we split text with (see unicode_additions.cpp).
#pragma once
#include <cstdint>
#include <span>

namespace longlora::text {

struct UnicodeAddition {
  char32_t first, last;  // an inclusive range
  char category[3];      // its general category, e.g. "Lo"
};

// In ascending order.
[[nodiscard]] std::span<const UnicodeAddition> unicode_additions();

}  // namespace longlora::text

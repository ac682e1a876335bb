// Catch2 v2's one header, by means of v3: the names that the tests use and v3 moved. On the include path only where the
// system has v3 (scripts/cmake/Dependencies.cmake).
#pragma once
#include <catch2/catch_all.hpp>

#include <string>

using Catch::Approx;

namespace Catch {

inline Matchers::StringContainsMatcher Contains(const std::string& text) {
  return Matchers::ContainsSubstring(text);
}

}  // namespace Catch

// Names of the sections that docs/compatibility.md is made from (scripts/compatibility): what was compared with whom.
#pragma once
#include <fmt/format.h>

#include <string>

namespace longlora::test {

// area: "model", "rope", "config", "adapter", "tokenizer" or "chat".
inline std::string compatible(const std::string& area, const std::string& subject, const std::string& what) {
  return fmt::format("compatible|{}|{}|{}", area, subject, what);
}

}  // namespace longlora::test

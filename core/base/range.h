// Things numbered begin, begin + 1, ..., end - 1.
#pragma once
#include <cstdint>

namespace longlora {

struct Range {
  int64_t begin = 0, end = 0;
  [[nodiscard]] int64_t size() const { return end - begin; }
  bool operator==(const Range&) const = default;
};

}  // namespace longlora

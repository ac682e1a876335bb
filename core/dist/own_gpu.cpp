#include "core/dist/own_gpu.h"

#include <unordered_map>

namespace longlora::dist {

std::optional<std::pair<int, int>> shared_gpu(std::span<const std::string> ids) {
  std::unordered_map<std::string, int> owner;
  for (size_t rank = 0; rank < ids.size(); ++rank) {
    if (ids[rank].empty()) continue;
    const auto [known, first] = owner.try_emplace(ids[rank], static_cast<int>(rank));
    if (!first) return std::pair(known->second, static_cast<int>(rank));
  }
  return std::nullopt;
}

}  // namespace longlora::dist

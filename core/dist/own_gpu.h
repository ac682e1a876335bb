// Every rank needs a GPU of its own. Numbers do not tell: in a batch job each rank may see one GPU, number 0, and all of them
// another; or too many ranks were started, and some see the same. The GPUs' own identities do.
#pragma once
#include <optional>
#include <span>
#include <string>
#include <utility>

namespace longlora::dist {

// The first two ranks that have the same GPU; `ids`: Gpu::id of every rank's (core/base/gpu_driver.h), empty where unknown.
[[nodiscard]] std::optional<std::pair<int, int>> shared_gpu(std::span<const std::string> ids);

}  // namespace longlora::dist

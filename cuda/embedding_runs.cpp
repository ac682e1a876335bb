#include <algorithm>
#include <string>

#include "cuda/embedding.h"
#include "cuda/launch_error.h"

namespace longlora::cuda {

TokenRuns token_runs(std::span<const int32_t> tokens) {
  TokenRuns result;
  const auto count = static_cast<int64_t>(tokens.size());
  std::vector<uint64_t> keys(tokens.size());  // token, place
  for (int64_t t = 0; t < count; ++t) {
    if (tokens[t] < 0) throw LaunchError("embedding: token " + std::to_string(tokens[t]) + " at " + std::to_string(t));
    keys[t] = static_cast<uint64_t>(tokens[t]) << 32 | static_cast<uint64_t>(t);
  }
  std::sort(keys.begin(), keys.end());
  for (int64_t i = 0; i < count; ++i) {
    const auto token = static_cast<int64_t>(keys[i] >> 32);
    if (result.runs.empty() || result.runs.back().token != token) result.runs.push_back({token, i, i});
    result.runs.back().end = i + 1;
    result.order.push_back(static_cast<int64_t>(keys[i] & 0xffffffffu));
  }
  std::stable_sort(result.runs.begin(), result.runs.end(),
                   [](const TokenRun& a, const TokenRun& b) { return a.end - a.begin > b.end - b.begin; });
  return result;
}

}  // namespace longlora::cuda

#include <algorithm>

#include "cuda/adamw.h"

namespace longlora::cuda {

std::vector<AdamWChunk> adamw_chunks(std::span<const AdamWTensor> tensors) {
  constexpr int64_t kChunk = 8192;
  std::vector<AdamWChunk> chunks;
  for (size_t i = 0; i < tensors.size(); ++i) {
    for (int64_t begin = 0; begin < tensors[i].count; begin += kChunk) {
      chunks.push_back({static_cast<int64_t>(i), begin, std::min(begin + kChunk, tensors[i].count)});
    }
  }
  return chunks;
}

}  // namespace longlora::cuda

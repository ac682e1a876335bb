// The gradient of the token embedding on the GPU: dtable[tokens[t]] += dx[t], as core/ops/embedding.h says it. The tokens
// are sorted on the host beforehand, so that one block has all of a token's rows and adds them in the order of t:
// deterministic, without atomic operations, and the same bits as the CPU.
//
// Bytes moved per element of dx of b bytes: b, and 8 per element of each table row that is touched. Accesses of 16 bytes
// where pointers, strides and d are multiples of 16 bytes.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "cuda/types.h"

namespace longlora::cuda {

// order[begin, end) are the places of one token, ascending.
struct TokenRun {
  int64_t token, begin, end;
};

// Plain vectors; the launcher wants them where the kernel can read them.
struct TokenRuns {
  std::vector<int64_t> order;  // every place once
  std::vector<TokenRun> runs;  // the longest first, so that no block starts late with a long one
};

// Throws LaunchError for a negative token.
[[nodiscard]] TokenRuns token_runs(std::span<const int32_t> tokens);

struct EmbeddingBackward {
  Element element = Element::bfloat16;  // of dx
  int64_t d = 0;
  const void* dx = nullptr;  // [T, d], rows `dx_row` elements apart
  int64_t dx_row = 0;
  const int64_t* order = nullptr;  // [T]
  const TokenRun* runs = nullptr;
  int64_t run_count = 0;
  float* dtable = nullptr;  // [vocab, d], rows `dtable_row` elements apart, added to
  int64_t dtable_row = 0;
};

// Throws LaunchError for sizes that make no sense or a launch that fails.
void embedding_backward(const EmbeddingBackward& arguments, Stream stream);

}  // namespace longlora::cuda

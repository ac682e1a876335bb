// Cross-entropy of rows of logits with their targets, and its gradient over the logits, on the GPU: the elementwise half
// of core/ops/cross_entropy.h, between the two matrix products of a chunk of tokens.
//
//   loss_t = log sum_i exp(x_i) - x_target        x_i = (exp(x_i) / sum_j exp(x_j) - [i = target]) * scale
//
// A row is read once for its maximum and sum together (Milakov, Gimelshein, arXiv 1805.02867, algorithm 3) and, for the
// gradient, once more, mostly from the L2 cache, and written. Bytes moved per logit of b bytes: b, with the gradient 3b.
// Accesses of 16 bytes wherever a row begins; what lies before and after them one by one.
#pragma once
#include <cstdint>

#include "cuda/types.h"

namespace longlora::cuda {

struct CrossEntropy {
  Element element = Element::bfloat16;
  int64_t rows = 0, vocab = 0;
  void* logits = nullptr;  // [rows, vocab], rows `row` elements apart
  int64_t row = 0;
  const int32_t* targets = nullptr;  // [rows], below vocab; negative: loss 0 and gradient 0
  float* losses = nullptr;           // [rows]
  bool gradient = false;             // whether the logits become it
  float scale = 1;                   // of the gradient
};

// Throws LaunchError for sizes that make no sense or a launch that fails.
void cross_entropy(const CrossEntropy& arguments, Stream stream);

}  // namespace longlora::cuda

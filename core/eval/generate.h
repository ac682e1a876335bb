// Text from a model: greedy or sampled, one token after the other with a key-value cache.
#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "core/model/llama.h"

namespace longlora::eval {

struct GenerateOptions {
  int64_t max_new_tokens = 128;
  double temperature = 0;         // 0: greedy
  double top_p = 1;               // nucleus (Holtzman et al. 2020)
  int64_t top_k = 0;              // 0: no limit
  double repetition_penalty = 1;  // over 1: less of the tokens that were there already
  uint64_t seed = 42;
};

// The next token from logits [vocab] float32. Greedy takes the first of equals.
[[nodiscard]] int32_t pick_token(const at::Tensor& logits, const GenerateOptions& options, uint64_t draw);

// Keskar et al. 2019 (CTRL), section 4.1, as transformers computes it: the logits of all tokens of `seen`, once each, are
// divided by the penalty where they are positive and multiplied by it where they are negative. logits: [vocab] float32 on
// the CPU, changed in place; ids beyond them are passed over.
void penalize_repetition(at::Tensor& logits, std::span<const int32_t> seen, double penalty);

// Whether RoPE turns keys the same way in a sequence of `a` tokens and in one of `b`: always, but under dynamic and longrope.
[[nodiscard]] bool turned_alike(const model::Config& config, int64_t a, int64_t b);

// New tokens after `prompt` (at least one token), each handed to `each` as it comes, until max_new_tokens, one of
// `stop` (which is not returned), or `each` returns false.
[[nodiscard]] std::vector<int32_t> generate(const model::Llama& llama, std::span<const int32_t> prompt,
                                            std::span<const int32_t> stop, const GenerateOptions& options,
                                            const std::function<bool(int32_t)>& each = {});

// The same from a cache that has the prompt, `logits` being those after it; the cache needs room for max_new_tokens. All new
// tokens but the last are in it afterwards.
[[nodiscard]] std::vector<int32_t> continue_from(const model::Llama& llama, model::KvCache& cache,
                                                 std::span<const int32_t> prompt, at::Tensor logits,
                                                 std::span<const int32_t> stop, const GenerateOptions& options,
                                                 const std::function<bool(int32_t)>& each = {});

}  // namespace longlora::eval

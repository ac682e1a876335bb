// Sliding-window perplexity with full attention.
//
//   all          LongLoRA's protocol: windows of `context` tokens start every `stride` tokens, each is an independent
//                sequence, every one of its context - 1 predictions is scored; tokens are scored once a window.
//   last_stride  every token is scored once: a window scores only its last `stride` predictions (the first window all),
//                so that each token has at least context - stride tokens before it.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "core/data/token_source.h"
#include "core/model/llama.h"

namespace longlora::eval {

enum class Score { all, last_stride };

struct PerplexityOptions {
  int64_t context = 0;
  int64_t stride = 256;  // 0: as long as the context
  Score score = Score::all;
  int64_t max_tokens = 0;  // only the first tokens of the data; 0: all
  ops::AttentionBackend backend = ops::AttentionBackend::automatic;
};

struct PerplexityResult {
  int64_t windows = 0, tokens = 0;  // tokens: predictions scored
  double loss = 0;                  // their mean negative log-likelihood
};

// The windows' starts for a text of `tokens` tokens: 0, stride, ... as long as a whole window fits.
[[nodiscard]] std::vector<int64_t> window_starts(int64_t tokens, int64_t context, int64_t stride);

// Exit 3 when the data are shorter than one window. `each_window(start, nll)` gets the scored predictions of each
// window, in order. Throws Stopped on a signal, between layers.
[[nodiscard]] PerplexityResult perplexity(
    const model::Llama& llama, const data::TokenSource& tokens, const PerplexityOptions& options,
    const std::string& label,
    const std::function<void(int64_t start, const std::vector<float>& nll)>& each_window = {});

}  // namespace longlora::eval

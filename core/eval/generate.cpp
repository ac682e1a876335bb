#include "core/eval/generate.h"

#include <algorithm>

#include "core/base/error.h"
#include "core/base/random.h"

namespace longlora::eval {

int32_t pick_token(const at::Tensor& logits, const GenerateOptions& options, uint64_t draw) {
  if (options.temperature <= 0) return static_cast<int32_t>(logits.argmax().item<int64_t>());
  // Largest first, cut to the k best, then to the smallest set whose probability reaches p.
  auto [sorted, order] =
      logits.to(at::kDouble).div(options.temperature).sort(/*stable=*/true, /*dim=*/-1, /*descending=*/true);
  int64_t keep = options.top_k > 0 ? std::min<int64_t>(options.top_k, sorted.size(0)) : sorted.size(0);
  at::Tensor p = sorted.narrow(0, 0, keep).softmax(0);
  const double* probability = p.data_ptr<double>();
  double total = 0;
  int64_t n = 0;
  while (n < keep && total < options.top_p) total += probability[n++];
  double left = SplitMix(derive_seed(options.seed, {draw})).uniform() * total;
  int64_t chosen = 0;
  while (chosen + 1 < n && left >= probability[chosen]) left -= probability[chosen++];
  return static_cast<int32_t>(order[chosen].item<int64_t>());
}

void penalize_repetition(at::Tensor& logits, std::span<const int32_t> seen, double penalty) {
  auto* value = logits.data_ptr<float>();
  std::vector<bool> done(static_cast<size_t>(logits.size(0)));
  const auto by = static_cast<float>(penalty);
  for (const int32_t id : seen) {
    const auto i = static_cast<size_t>(id);
    if (i >= done.size() || done[i]) continue;
    done[i] = true;
    value[i] = value[i] < 0 ? value[i] * by : value[i] / by;
  }
}

bool turned_alike(const model::Config& config, int64_t a, int64_t b) {
  const auto one = model::frequencies(config.rope, config.head_dim, a);
  const auto other = model::frequencies(config.rope, config.head_dim, b);
  return one.inverse == other.inverse && one.attention == other.attention;
}

std::vector<int32_t> generate(const model::Llama& llama, std::span<const int32_t> prompt, std::span<const int32_t> stop,
                              const GenerateOptions& options, const std::function<bool(int32_t)>& each) {
  if (prompt.empty()) usage_error("the prompt has no token: give at least one character, or a model with a BOS token");
  model::KvCache cache = llama.make_cache(static_cast<int64_t>(prompt.size()) + options.max_new_tokens);
  const at::Tensor logits = llama.next_logits(prompt, cache);
  return continue_from(llama, cache, prompt, logits, stop, options, each);
}

std::vector<int32_t> continue_from(const model::Llama& llama, model::KvCache& cache, std::span<const int32_t> prompt,
                                   at::Tensor logits, std::span<const int32_t> stop, const GenerateOptions& options,
                                   const std::function<bool(int32_t)>& each) {
  std::vector<int32_t> tokens, seen(prompt.begin(), prompt.end());
  while (static_cast<int64_t>(tokens.size()) < options.max_new_tokens) {
    if (options.repetition_penalty != 1) penalize_repetition(logits, seen, options.repetition_penalty);
    const int32_t next = pick_token(logits, options, tokens.size());
    if (std::find(stop.begin(), stop.end(), next) != stop.end()) break;
    tokens.push_back(next);
    seen.push_back(next);
    if (each && !each(next)) break;
    if (static_cast<int64_t>(tokens.size()) == options.max_new_tokens) break;
    logits = llama.next_logits(std::span(&tokens.back(), 1), cache);
  }
  return tokens;
}

}  // namespace longlora::eval

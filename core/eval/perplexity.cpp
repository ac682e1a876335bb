#include "core/eval/perplexity.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/base/error.h"
#include "core/base/progress.h"
#include "core/base/signal.h"

namespace longlora::eval {
namespace {

// Windows computed at once: short ones together, so that a small context does not leave the machine idle.
constexpr int64_t kTokensAtOnce = 4096;

// Windows [first, last) of `starts` as one batch: row by row, every prediction of a window a target.
data::Batch window_batch(const data::TokenSource& tokens, std::span<const int64_t> starts, int64_t context) {
  data::Batch batch{.rows = static_cast<int64_t>(starts.size()),
                    .length = context,
                    .tokens = {},
                    .targets = {},
                    .positions = {},
                    .documents = {0}};
  batch.tokens.resize(starts.size() * static_cast<size_t>(context));
  batch.targets.assign(batch.tokens.size(), data::kIgnore);
  batch.positions.resize(batch.tokens.size());
  for (size_t r = 0; r < starts.size(); ++r) {
    const size_t at = r * static_cast<size_t>(context), end = at + static_cast<size_t>(context);
    tokens.copy(starts[r], std::span(batch.tokens).subspan(at, static_cast<size_t>(context)));
    std::copy(batch.tokens.begin() + static_cast<int64_t>(at) + 1, batch.tokens.begin() + static_cast<int64_t>(end),
              batch.targets.begin() + static_cast<int64_t>(at));
    std::iota(batch.positions.begin() + static_cast<int64_t>(at), batch.positions.begin() + static_cast<int64_t>(end),
              0);
    batch.documents.push_back(static_cast<int64_t>(end));
  }
  return batch;
}

}  // namespace

std::vector<int64_t> window_starts(int64_t tokens, int64_t context, int64_t stride) {
  std::vector<int64_t> starts;
  for (int64_t start = 0; start + context <= tokens; start += stride) starts.push_back(start);
  return starts;
}

PerplexityResult perplexity(const model::Llama& llama, const data::TokenSource& tokens,
                            const PerplexityOptions& options, const std::string& label,
                            const std::function<void(int64_t, const std::vector<float>&)>& each_window) {
  const int64_t context = options.context, stride = options.stride > 0 ? options.stride : context;
  const int64_t available = options.max_tokens > 0 ? std::min(options.max_tokens, tokens.tokens()) : tokens.tokens();
  const std::vector<int64_t> starts = window_starts(available, context, stride);
  if (starts.empty()) {
    input_error("{}: {} tokens do not fill one window of {}; choose a shorter --context or longer data", label,
                available, context);
  }
  const auto at_once = static_cast<size_t>(std::max<int64_t>(1, kTokensAtOnce / context));
  Progress progress(fmt::format("{} at {}", label, context), static_cast<int64_t>(starts.size()), "windows");
  PerplexityResult result;
  double sum = 0;
  for (size_t first = 0; first < starts.size(); first += at_once) {
    leave_if_stopped();
    const std::span<const int64_t> some = std::span(starts).subspan(first, std::min(at_once, starts.size() - first));
    const data::Batch batch = window_batch(tokens, some, context);
    const at::Tensor losses =
        llama.token_losses(batch, {.group = 0, .backend = options.backend}).to(at::kCPU, at::kFloat).contiguous();
    for (size_t r = 0; r < some.size(); ++r) {
      const float* row = losses.data_ptr<float>() + r * static_cast<size_t>(context);
      const bool whole = options.score == Score::all || some[r] == 0;
      const int64_t begin = whole ? 0 : std::max<int64_t>(0, context - 1 - stride);
      const std::vector<float> nll(row + begin, row + context - 1);
      const double before = sum;
      for (const float x : nll) sum += static_cast<double>(x);
      if (std::isfinite(before) && !std::isfinite(sum)) {
        fail("{}: the loss of the window at token {} is not finite; are the weights, or their dtype, sound?", label,
             some[r]);
      }
      result.tokens += static_cast<int64_t>(nll.size());
      if (each_window) each_window(some[r], nll);
    }
    result.windows += static_cast<int64_t>(some.size());
    progress.update(result.windows, fmt::format("ppl {:.3f}", std::exp(sum / static_cast<double>(result.tokens))));
  }
  progress.clear();
  result.loss = sum / static_cast<double>(result.tokens);
  return result;
}

}  // namespace longlora::eval

#include "core/eval/answer.h"

#include <chrono>
#include <optional>

#include "core/base/error.h"
#include "core/base/progress.h"
#include "core/base/signal.h"
#include "core/text/stop_strings.h"
#include "core/text/stream_decoder.h"

namespace longlora::eval {

namespace {

// Runs what the cache lacks of the prompt; the logits after it, undefined when a signal came before its end. Long ones go
// in pieces of what the model takes at once, which changes nothing where the length reached does not turn keys otherwise.
at::Tensor read_prompt(const model::Llama& llama, std::span<const int32_t> prompt, model::KvCache& cache) {
  constexpr int64_t kPiece = 2048;
  const auto size = static_cast<int64_t>(prompt.size());
  const int64_t left = size - cache.length;
  const bool pieces = left > 2 * kPiece && turned_alike(llama.config(), cache.length + kPiece, size);
  std::optional<Progress> progress;
  if (pieces) progress.emplace("reading the prompt", left, "tokens");
  at::Tensor logits;
  try {
    while (cache.length < size && !stop_requested()) {
      const int64_t n = pieces ? std::min(kPiece, size - cache.length) : left;
      logits = llama.next_logits(prompt.subspan(static_cast<size_t>(cache.length), static_cast<size_t>(n)), cache);
      if (progress) progress->update(left - (size - cache.length));
    }
  } catch (const Stopped&) {  // within a piece, which the cache then lacks
  }
  if (progress) progress->clear();
  return cache.length < size ? at::Tensor() : logits;
}

}  // namespace

std::string_view name_of(Finish finish) {
  constexpr std::string_view names[] = {"end", "stop", "length", "interrupted"};
  return names[static_cast<size_t>(finish)];
}

Answer answer(const model::Llama& llama, const std::shared_ptr<const text::Tokenizer>& tokenizer,
              std::span<const int32_t> prompt, model::KvCache& cache, std::span<const int32_t> stop,
              const AnswerOptions& options, const std::function<void(const std::string&)>& show) {
  if (prompt.empty()) usage_error("the prompt has no token: give at least one character, or a model with a BOS token");
  const auto start = std::chrono::steady_clock::now();
  text::StreamDecoder decoder(tokenizer);
  (void)decoder.push(prompt);  // how a token reads may depend on what stands before it
  text::StopStrings stops(options.stop_strings);
  Answer out;
  const auto take = [&](const std::string& piece) {
    out.text += piece;
    if (!piece.empty()) show(piece);
  };
  const at::Tensor logits = read_prompt(llama, prompt, cache);
  if (!logits.defined()) {
    out.finish = Finish::interrupted;
    return out;
  }
  out.tokens = continue_from(llama, cache, prompt, logits, stop, options.generate, [&](int32_t token) {
    take(stops.push(decoder.push(token)));
    return !stops.found() && !stop_requested();
  });
  take(stops.push(decoder.finish()));
  take(stops.finish());
  const bool all = static_cast<int64_t>(out.tokens.size()) == options.generate.max_new_tokens;
  out.finish = stops.found()      ? Finish::stop
               : stop_requested() ? Finish::interrupted
               : all              ? Finish::length
                                  : Finish::end;
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  out.tokens_per_s = static_cast<double>(out.tokens.size()) / seconds;
  return out;
}

}  // namespace longlora::eval

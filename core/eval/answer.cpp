#include "core/eval/answer.h"

#include <chrono>

#include "core/base/error.h"
#include "core/base/signal.h"
#include "core/text/stop_strings.h"
#include "core/text/stream_decoder.h"

namespace longlora::eval {

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
  const at::Tensor logits = llama.next_logits(prompt.subspan(static_cast<size_t>(cache.length)), cache);
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

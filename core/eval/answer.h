// What a model says to a prompt, as text: generated, decoded while it comes, ended at a stop text.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/eval/generate.h"
#include "core/text/tokenizer.h"

namespace longlora::eval {

struct AnswerOptions {
  GenerateOptions generate;
  std::vector<std::string> stop_strings;  // none of them empty
};

enum class Finish { end, stop, length, interrupted };  // an end token, a stop text, max_new_tokens, a signal
[[nodiscard]] std::string_view name_of(Finish finish);

struct Answer {
  std::vector<int32_t> tokens;  // new ones, without the end token; those of a stop text are among them
  std::string text;             // without special tokens and without the stop text
  Finish finish = Finish::length;
  double tokens_per_s = 0;  // new tokens over all the time, that of the prompt included
};

// `cache` holds the first cache.length tokens of `prompt` (fewer than all) and has room for the rest and max_new_tokens.
// Long prompts show their progress, and a signal ends them too (nothing is answered then; the cache has what was read).
// `show` gets the text in pieces of whole characters as they become certain.
[[nodiscard]] Answer answer(const model::Llama& llama, const std::shared_ptr<const text::Tokenizer>& tokenizer,
                            std::span<const int32_t> prompt, model::KvCache& cache, std::span<const int32_t> stop,
                            const AnswerOptions& options, const std::function<void(const std::string&)>& show);

}  // namespace longlora::eval

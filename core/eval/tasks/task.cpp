#include "core/eval/tasks/task.h"

#include <algorithm>

#include "core/base/error.h"
#include "core/base/random.h"

namespace longlora::eval {

Task seeded_task(const std::string& name, uint64_t seed, std::function<Sample(const Cell&, uint64_t stream)> make) {
  Task task;
  task.name = name;
  task.settings = {{"seed", seed}};
  task.make = [seed, make = std::move(make)](const Cell& cell) {
    return make(cell, derive_seed(seed, {static_cast<uint64_t>(cell.length), static_cast<uint64_t>(cell.trial)}));
  };
  return task;
}

PromptEncoder::PromptEncoder(const text::Tokenizer& tokenizer, std::optional<text::ChatFormat> format)
    : tokenizer_(tokenizer), format_(format) {
  if (!format_) return;
  const text::ChatMessage hello{text::Role::user, "hello"};
  (void)text::encode_chat(tokenizer_, *format_, std::span(&hello, 1));  // says what the tokenizer lacks
}

std::vector<int32_t> PromptEncoder::encode(const Prompt& prompt, const std::string& end) const {
  std::string text;
  if (format_) {
    const auto name = [&](std::optional<int32_t> id) { return id ? tokenizer_.decode(std::span(&*id, 1), false) : ""; };
    const text::ChatMessage message{text::Role::user, prompt.question};
    for (const auto& piece :
         text::render_chat(*format_, std::span(&message, 1), name(tokenizer_.bos()), name(tokenizer_.eos())))
      text += piece.text;
  } else {
    text = prompt.question;
  }
  std::vector<int32_t> ids = tokenizer_.encode(text + prompt.lead + end, format_.has_value());
  const bool has_bos = !ids.empty() && tokenizer_.bos() && ids.front() == *tokenizer_.bos();
  if (tokenizer_.adds_bos() && tokenizer_.bos() && !has_bos) ids.insert(ids.begin(), *tokenizer_.bos());
  return ids;
}

Sample PromptEncoder::complete(const Prompt& text, Sample sample) const {
  sample.prompt = prompt(text);
  sample.whole = whole(text);
  return sample;
}

size_t answer_begin(const Sample& sample) {
  const auto& a = sample.prompt;
  const auto& b = sample.whole;
  return static_cast<size_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin());
}

int64_t fit(int64_t least, int64_t most, int64_t room, const std::function<int64_t(int64_t)>& tokens) {
  if (tokens(least) > room) return -1;
  int64_t good = least, bad = most + 1;
  for (int64_t step = std::max<int64_t>(1, least); good < most; step *= 2) {
    const int64_t next = std::min(most, good + step);
    if (tokens(next) > room) {
      bad = next;
      break;
    }
    good = next;
  }
  while (bad - good > 1) {
    const int64_t middle = good + (bad - good) / 2;
    (tokens(middle) <= room ? good : bad) = middle;
  }
  return good;
}

int64_t fit_or_refuse(const std::string& task, const Cell& cell, int64_t least, int64_t most,
                      const std::function<int64_t(int64_t)>& tokens) {
  const int64_t n = fit(least, most, cell.length, tokens);
  if (n < 0)
    usage_error("--lengths {}: too short for {}, which takes {} tokens at least", cell.length, task, tokens(least));
  if (n == most && 4 * tokens(n) < 3 * cell.length)
    usage_error("--lengths {}: too long for {}, which fills {} tokens at most", cell.length, task, tokens(n));
  return n;
}

int64_t fill(const std::string& task, const Cell& cell, int64_t least, int64_t most, const PromptEncoder& encoder,
             int64_t max_new_tokens, const std::function<Prompt(int64_t)>& prompt) {
  return fit_or_refuse(task, cell, least, most, [&](int64_t n) {
    const Prompt text = prompt(n);
    return std::max(encoder.count(text) + max_new_tokens, static_cast<int64_t>(encoder.whole(text).size()));
  });
}

}  // namespace longlora::eval

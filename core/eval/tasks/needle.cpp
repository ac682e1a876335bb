#include "core/eval/tasks/needle.h"

#include <fmt/format.h>

#include "core/base/random.h"
#include "core/eval/tasks/score.h"

namespace longlora::eval {

Prompt needle_prompt(const NeedleOptions& options, const std::string& context) {
  return {.question = fmt::format("This is a very long story book: <book> {} </book>.\n Based on the content of the "
                                  "book, Question: {}",
                                  context, options.question),
          .lead = "\nAnswer:",
          .answer = " " + options.answer};
}

std::string with_needle(std::span<const std::string> sentences, const std::string& needle, double depth) {
  size_t total = 0;
  for (const std::string& sentence : sentences) total += sentence.size();
  const double want = depth / 100 * static_cast<double>(total);
  std::string text;
  bool placed = false;
  for (const std::string& sentence : sentences) {
    if (!placed && depth < 100 && static_cast<double>(text.size() + sentence.size()) > want) {
      text += needle;
      placed = true;
    }
    text += sentence;
  }
  return placed ? text : text + needle;
}

Task needle_task(const NeedleOptions& options, const PromptEncoder& encoder, const Haystack& haystack) {
  Task task;
  task.name = "needle";
  task.settings = {{"needle", options.needle},    {"question", options.question},
                   {"answer", options.answer},    {"max_new_tokens", options.max_new_tokens},
                   {"haystack", haystack.name()}, {"seed", options.seed}};
  task.takes_depth = true;
  task.make = [=, &encoder, &haystack](const Cell& cell) {
    // Trial 0 reads a file from its start, as the reference does.
    const uint64_t stream = cell.trial == 0 ? 0 : derive_seed(options.seed, {static_cast<uint64_t>(cell.trial)});
    std::vector<std::string> sentences;
    const auto prompt = [&](int64_t n) {
      while (static_cast<int64_t>(sentences.size()) < n)
        sentences.push_back(haystack.sentence(stream, static_cast<int64_t>(sentences.size())));
      return needle_prompt(options,
                           with_needle(std::span(sentences).first(static_cast<size_t>(n)), options.needle, cell.depth));
    };
    const int64_t n = fill("the needle", cell, 1, kNoLimit, encoder, options.max_new_tokens, prompt);
    Sample sample;
    sample.max_new_tokens = options.max_new_tokens;
    sample.expected = {options.answer};
    sample.depth = cell.depth;
    sample.facts = {{"needle", options.needle}, {"question", options.question}};
    return encoder.complete(prompt(n), std::move(sample));
  };
  task.score = [](const Sample& sample, const std::string& response, std::span<const int32_t>) {
    return match_words(response, sample.expected.front());
  };
  return task;
}

}  // namespace longlora::eval

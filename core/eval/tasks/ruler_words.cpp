#include <fmt/ranges.h>
#include <algorithm>
#include <cmath>
#include <numbers>
#include <unordered_set>

#include "core/eval/tasks/ruler.h"
#include "core/eval/tasks/score.h"

namespace longlora::eval {
namespace {

constexpr int64_t kCommon = 10, kCweAnswer = 120, kFweAnswer = 50, kLetters = 6, kFewest = 4;
constexpr double kZeta2 = std::numbers::pi * std::numbers::pi / 6;

// " 1. alpha 2. beta"
std::string numbered(std::span<const std::string> words) {
  std::string text;
  for (size_t i = 0; i < words.size(); ++i) text += fmt::format(" {}. {}", i + 1, words[i]);
  return text;
}

// `count` words from `words`, the first kCommon of them `often` times, the others `rarely`, in random order.
std::vector<std::string> word_list(std::span<const std::string> words, int64_t often, int64_t rarely, uint64_t seed) {
  std::vector<std::string> list;
  for (size_t i = 0; i < words.size(); ++i)
    list.insert(list.end(), static_cast<size_t>(i < kCommon ? often : rarely), words[i]);
  SplitMix random(seed);
  shuffle(list, random);
  return list;
}

double score_all(const Sample& made, const std::string& response, std::span<const int32_t>) {
  return match_all(response, made.expected);
}

}  // namespace

Prompt cwe_prompt(std::span<const std::string> list, std::span<const std::string> common) {
  return {.question =
              fmt::format("Below is a numbered list of words. In these words, some appear more often than others. "
                          "Memorize the ones that appear most often.\n{}\nQuestion: What are the 10 most common words "
                          "in the above list?",
                          numbered(list).substr(1)),
          .lead = " Answer: The top 10 words that appear most often in the list are:",
          .answer = numbered(common)};
}

Task cwe_task(uint64_t seed, const PromptEncoder& encoder) {
  Task task = seeded_task("cwe", seed, [&encoder](const Cell& cell, uint64_t stream) {
    SplitMix random(stream);
    const bool small = cell.length < 4096;
    const auto words_from = [&](int64_t count) {
      std::vector<std::string> words;
      for (const int64_t i : sample(random, kWords, count)) words.push_back(plain_word(i));
      return words;
    };
    const std::vector<std::string> shown = words_from(small ? 20 : 40), all = words_from(kWords);
    const uint64_t shown_seed = random(), list_seed = random();
    const auto first = [](const std::vector<std::string>& words) { return std::span(words).first(kCommon); };
    const Prompt example = cwe_prompt(word_list(shown, small ? 3 : 10, small ? 1 : 3, shown_seed), first(shown));
    const auto prompt = [&](int64_t n) {
      const auto list =
          word_list(std::span(all).first(static_cast<size_t>(n)), small ? 6 : 30, small ? 1 : 3, list_seed);
      Prompt text = cwe_prompt(list, first(all));
      text.question = example.question + example.lead + example.answer + "\n" + text.question;
      return text;
    };
    const int64_t n = fill("cwe", cell, kCommon + 1, kWords, encoder, kCweAnswer, prompt);
    Sample made;
    made.max_new_tokens = kCweAnswer;
    made.expected.assign(all.begin(), all.begin() + kCommon);
    made.facts = {{"needle", fmt::format("{}", fmt::join(made.expected, " "))}};
    return encoder.complete(prompt(n), std::move(made));
  });
  task.score = score_all;
  return task;
}

Prompt fwe_prompt(std::span<const std::string> words, std::span<const std::string> answers) {
  return {.question =
              fmt::format("Read the following coded text and track the frequency of each coded word. Find the three "
                          "most frequently appeared coded words. {}\nQuestion: Do not provide any explanation. Please "
                          "ignore the dots '....'. What are the three most frequently appeared words in the above "
                          "coded text?",
                          fmt::join(words, " ")),
          .lead = " Answer: According to the coded text above, the three most frequently appeared words are:",
          .answer = fmt::format(" {}", fmt::join(answers, " "))};
}

std::vector<int64_t> fwe_counts(int64_t n, int64_t vocabulary) {
  std::vector<int64_t> counts;
  for (int64_t rank = 1; rank <= vocabulary; ++rank) {
    const auto count =
        static_cast<int64_t>(static_cast<double>(n) * std::pow(static_cast<double>(rank), -2.0) / kZeta2);
    if (count == 0) break;
    counts.push_back(count);
  }
  return counts;
}

Task fwe_task(uint64_t seed, const PromptEncoder& encoder) {
  Task task = seeded_task("fwe", seed, [&encoder](const Cell& cell, uint64_t stream) {
    SplitMix random(stream);

    std::vector<std::string> vocabulary = {"..."};  // the most frequent one is noise
    const int64_t size = std::max(kFewest, (cell.length - kFweAnswer) / 50);
    for (std::unordered_set<std::string> taken; static_cast<int64_t>(vocabulary.size()) < size;) {
      std::string word = random_letters(random, kLetters, 'a');
      if (taken.insert(word).second) vocabulary.push_back(std::move(word));
    }
    const std::span answers = std::span(vocabulary).subspan(1, 3);
    const uint64_t list_seed = random();
    const auto prompt = [&](int64_t n) {
      std::vector<std::string> words;
      const std::vector<int64_t> counts = fwe_counts(n, size);
      for (size_t i = 0; i < counts.size(); ++i)
        words.insert(words.end(), static_cast<size_t>(counts[i]), vocabulary[i]);
      SplitMix order(list_seed);
      shuffle(words, order);
      return fwe_prompt(words, answers);
    };
    // From 53 on the last word of the answer is more frequent than the next one.
    const int64_t n = fill("fwe", cell, 53, kNoLimit, encoder, kFweAnswer, prompt);
    Sample made;
    made.max_new_tokens = kFweAnswer;
    made.expected.assign(answers.begin(), answers.end());
    made.facts = {{"needle", fmt::format("{}", fmt::join(made.expected, " "))}};
    return encoder.complete(prompt(n), std::move(made));
  });
  task.score = score_all;
  return task;
}

}  // namespace longlora::eval

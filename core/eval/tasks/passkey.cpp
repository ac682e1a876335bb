#include "core/eval/tasks/passkey.h"

#include <algorithm>
#include <cmath>
#include <random>

#include "core/base/error.h"
#include "core/base/random.h"

namespace longlora::eval {
namespace {

constexpr const char* kTask =
    "There is an important info hidden inside a lot of irrelevant text. Find it and memorize them. I will quiz you "
    "about "
    "the important information there.";

// numpy.random.randint(low, high) of its RandomState: the smallest mask over the range, and what is beyond it drawn again.
int64_t numpy_randint(std::mt19937& random, int64_t low, int64_t high) {
  const auto range = static_cast<uint32_t>(high - 1 - low);
  if (range == 0) return low;
  uint32_t mask = range;
  for (const int shift : {1, 2, 4, 8, 16}) mask |= mask >> shift;
  uint32_t value = 0;
  do {
    value = static_cast<uint32_t>(random()) & mask;
  } while (value > range);
  return low + value;
}

// The first `n` characters of the sentences' repetition.
std::string garbage(int64_t n) {
  std::string text;
  text.reserve(static_cast<size_t>(n) + kNoise.size() + 1);
  while (static_cast<int64_t>(text.size()) < n) text.append(kNoise).append(" ");
  text.resize(static_cast<size_t>(n));
  return text;
}

double score_passkey(const Sample& sample, const std::string& response, std::span<const int32_t> tokens) {
  if (answer_begin(sample) == sample.prompt.size()) {
    return std::equal(tokens.begin(), tokens.end(), sample.whole.begin() + static_cast<ptrdiff_t>(sample.prompt.size()),
                      sample.whole.end())
               ? 1
               : 0;
  }
  return response.substr(std::min(response.find_first_not_of(" \n"), response.size())) == sample.expected.front() ? 1
                                                                                                                  : 0;
}

Sample finished(const PromptEncoder& encoder, const Prompt& prompt, const std::string& key, double depth) {
  Sample sample;
  sample.expected = {key};
  sample.depth = depth;
  sample.facts = {{"needle", fmt::format("The pass key is {0}. Remember it. {0} is the pass key.", key)}};
  sample = encoder.complete(prompt, std::move(sample));
  sample.max_new_tokens = static_cast<int64_t>(sample.whole.size() - answer_begin(sample));
  return sample;
}

// A text of sentences that is cut by characters: at its end, or, at depth 100, before the key.
class CutText {
 public:
  CutText(const Haystack& haystack, uint64_t stream, int64_t first, double depth, std::string key)
      : haystack_(haystack), stream_(stream), next_(first), depth_(depth), key_(std::move(key)) {}

  [[nodiscard]] Prompt prompt(int64_t characters) {
    auto n = static_cast<size_t>(characters);
    while (text_.size() <= n) {
      text_ += haystack_.sentence(stream_, next_++);
      starts_.push_back(text_.size());
    }
    while (n > 0 && (static_cast<unsigned char>(text_[n]) & 0xC0) == 0x80) --n;  // not inside a character
    size_t place = n;
    if (depth_ < 100) {
      const auto want = static_cast<size_t>(depth_ / 100 * static_cast<double>(n));
      place = *std::prev(std::upper_bound(starts_.begin(), starts_.end(), want));
    }
    return passkey_prompt(without_trailing_space(text_.substr(0, place)), text_.substr(place, n - place), key_);
  }

 private:
  const Haystack& haystack_;
  uint64_t stream_;
  int64_t next_;
  double depth_;
  std::string key_, text_;
  std::vector<size_t> starts_ = {0};  // of the sentences
};

// The prompt that makes cell.length tokens with its answer. Tokens do not grow evenly with characters, so a number may lie
// between two cuts: then one near by, or a text that begins a sentence later.
Sample exact_sample(const PasskeyOptions& options, const PromptEncoder& encoder, const Haystack& haystack,
                    const Cell& cell) {
  constexpr int64_t kTexts = 64, kNear = 8;
  const uint64_t stream = derive_seed(options.seed, {static_cast<uint64_t>(cell.trial)});
  SplitMix random(derive_seed(
      stream, {0x6b65, static_cast<uint64_t>(cell.length), static_cast<uint64_t>(std::llround(cell.depth * 1000))}));
  const std::string key = std::to_string(10000 + random.below(90000));
  // A tokenizer that joins "is" with the space behind it writes the answer in one token more.
  const Sample shortest = encoder.complete(passkey_prompt("", "", key), {});
  const auto over = static_cast<int64_t>(shortest.prompt.size() - answer_begin(shortest));
  for (int64_t first = 0; first < kTexts; ++first) {
    CutText text(haystack, stream, first, cell.depth, key);
    const auto tokens = [&](int64_t n) { return static_cast<int64_t>(encoder.whole(text.prompt(n)).size()) + over; };
    const int64_t about = fit_or_refuse("the passkey", cell, 0, kNoLimit, tokens);
    for (int64_t n = std::max<int64_t>(0, about - kNear); n <= about + kNear; ++n) {
      if (tokens(n) == cell.length) return finished(encoder, text.prompt(n), key, cell.depth);
    }
  }
  fail("no cut of the text gives {} tokens exactly; use another --haystack or leave --exact out", cell.length);
}

}  // namespace

Prompt passkey_prompt(const std::string& before, const std::string& after, const std::string& key) {
  return {.question = fmt::format("{0}\n{1}\nThe pass key is {2}. Remember it. {2} is the pass key.\n{3}\n"
                                  "What is the pass key?",
                                  kTask, before, key, after),
          .lead = " The pass key is",
          .answer = " " + key};
}

LongLoraPasskey longlora_passkey(int64_t length, uint32_t seed) {
  LongLoraPasskey drawn;
  drawn.garbage = static_cast<int64_t>(3.75 * static_cast<double>(length) / 1024) * 1024;
  std::mt19937 random(seed);
  drawn.before = drawn.garbage > 0 ? numpy_randint(random, 0, drawn.garbage) : 0;
  drawn.key = std::to_string(numpy_randint(random, 1, 50000));
  return drawn;
}

Prompt longlora_prompt(LongLoraPasskey drawn, double depth) {
  if (depth >= 0) drawn.before = static_cast<int64_t>(depth / 100 * static_cast<double>(drawn.garbage));
  return passkey_prompt(garbage(drawn.before), garbage(drawn.garbage - drawn.before), drawn.key);
}

Task passkey_task(const PasskeyOptions& options, const PromptEncoder& encoder, const Haystack& haystack) {
  Task task;
  task.name = "passkey";
  task.settings = {{"protocol", options.exact ? "exact" : "longlora"}, {"seed", options.seed}};
  if (options.exact) task.settings["haystack"] = haystack.name();
  task.takes_depth = true;
  task.nominal = !options.exact;
  task.make = [=, &encoder, &haystack](const Cell& cell) {
    if (options.exact) return exact_sample(options, encoder, haystack, cell);
    const LongLoraPasskey drawn =
        longlora_passkey(cell.length, static_cast<uint32_t>(options.seed + static_cast<uint64_t>(cell.trial)));
    if (drawn.garbage == 0)
      usage_error("--lengths {}: too short for LongLoRA's protocol, which starts at 274; give --exact", cell.length);
    const double at = 100.0 * static_cast<double>(drawn.before) / static_cast<double>(drawn.garbage);
    return finished(encoder, longlora_prompt(drawn, cell.depth), drawn.key, cell.depth < 0 ? at : cell.depth);
  };
  task.score = score_passkey;
  return task;
}

}  // namespace longlora::eval

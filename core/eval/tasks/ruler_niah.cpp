#include <fmt/ranges.h>
#include <algorithm>
#include <cmath>

#include "core/eval/tasks/ruler.h"
#include "core/eval/tasks/score.h"

namespace longlora::eval {
namespace {

constexpr int64_t kAnswer = 128;

const char* plural(KeyKind kind) {
  return kind == KeyKind::words ? "words" : kind == KeyKind::numbers ? "numbers" : "uuids";
}

std::string drawn(KeyKind kind, SplitMix& random) {
  switch (kind) {
    case KeyKind::words:
      return word_pair(static_cast<int64_t>(random.below(kWordPairs)));
    case KeyKind::numbers:
      return random_number(random, 7);
    case KeyKind::uuids:
      return random_uuid(random);
  }
  return {};
}

// "a", "a, and b", "a, b, and c", as RULER lists queries.
std::string listed(std::span<const std::string> words) {
  std::string text;
  for (size_t i = 0; i < words.size(); ++i) text += (i == 0 ? "" : i + 1 == words.size() ? ", and " : ", ") + words[i];
  return text;
}

// What does not depend on how long the text is.
struct Hidden {
  std::vector<std::string> needles, queries, answers;
};

Hidden hide(const NiahOptions& options, SplitMix& random) {
  Hidden hidden;
  std::vector<std::string> keys;
  std::vector<std::vector<std::string>> values;
  while (static_cast<int>(keys.size()) < options.keys) {
    std::string key = drawn(options.key, random);
    if (std::find(keys.begin(), keys.end(), key) != keys.end()) continue;
    keys.push_back(std::move(key));
    values.emplace_back();
    for (int v = 0; v < options.values; ++v) {
      values.back().push_back(drawn(options.value, random));
      hidden.needles.push_back(niah_needle({keys.back(), values.back().back()}, options.value));
    }
  }
  shuffle(hidden.needles, random);
  for (const int64_t i : sample(random, options.keys, options.queries)) {
    hidden.queries.push_back(keys[static_cast<size_t>(i)]);
    for (const auto& value : values[static_cast<size_t>(i)]) hidden.answers.push_back(value);
  }
  return hidden;
}

}  // namespace

std::optional<NiahOptions> niah_options(std::string_view name) {
  if (name == "niah_single_1" || name == "niah_single_2" || name == "niah_single") return NiahOptions{};
  if (name == "niah_single_3") return NiahOptions{.value = KeyKind::uuids};
  if (name == "niah_multikey_1" || name == "niah_multikey") return NiahOptions{.keys = 4};
  if (name == "niah_multikey_2") return NiahOptions{.needles_around = true};
  if (name == "niah_multikey_3")
    return NiahOptions{.key = KeyKind::uuids, .value = KeyKind::uuids, .needles_around = true};
  if (name == "niah_multivalue") return NiahOptions{.values = 4};
  if (name == "niah_multiquery") return NiahOptions{.keys = 4, .queries = 4};
  return std::nullopt;
}

std::string niah_needle(const Needle& needle, KeyKind value) {
  return fmt::format("One of the special magic {} for {} is: {}.", plural(value), needle.key, needle.value);
}

Prompt niah_prompt(const NiahOptions& options, const std::string& context, std::span<const std::string> queries,
                   std::span<const std::string> answers) {
  const std::string query = listed(queries), answer = " " + listed(answers);
  std::string type = plural(options.value);
  if (options.queries * options.values == 1) {
    type.pop_back();
    return {
        .question = fmt::format("A special magic {0} is hidden within the following text. Make sure to memorize it. I "
                                "will quiz you about the {0} afterwards.\n{1}\nWhat is the special magic {0} for {2} "
                                "mentioned in the provided text?",
                                type, context, query),
        .lead = fmt::format(" The special magic {} for {} mentioned in the provided text is", type, query),
        .answer = answer};
  }
  return {.question =
              fmt::format("Some special magic {0} are hidden within the following text. Make sure to memorize it. I "
                          "will quiz you about the {0} afterwards.\n{1}\nWhat are all the special magic {0} for {2} "
                          "mentioned in the provided text?",
                          type, context, query),
          .lead = fmt::format(" The special magic {} for {} mentioned in the provided text are", type, query),
          .answer = answer};
}

std::string needles_in_prose(std::span<const std::string> sentences, std::span<const std::string> needles,
                             std::span<const int64_t> places) {
  std::vector<std::string> parts;
  size_t from = 0;
  const auto stretch = [&](size_t to) {
    parts.push_back(fmt::format("{}", fmt::join(sentences.subspan(from, to - from), " ")));
    from = to;
  };
  for (size_t i = 0; i < needles.size(); ++i) {
    stretch(static_cast<size_t>(places[i]));
    parts.push_back(needles[i]);
  }
  stretch(sentences.size());
  return fmt::format("{}", fmt::join(parts, " "));
}

std::string needles_in_lines(std::span<const std::string> lines, std::span<const std::string> needles,
                             std::span<const int64_t> places) {
  std::vector<std::string> all;
  size_t needle = 0;
  for (size_t i = 0; i <= lines.size(); ++i) {
    while (needle < needles.size() && places[needle] == static_cast<int64_t>(i)) all.push_back(needles[needle++]);
    if (i < lines.size()) all.push_back(lines[i]);
  }
  return fmt::format("{}", fmt::join(all, "\n"));
}

Task niah_task(const std::string& name, const NiahOptions& options, uint64_t seed, const PromptEncoder& encoder,
               const Haystack& haystack) {
  Task task = seeded_task(name, seed, [=, &encoder, &haystack](const Cell& cell, uint64_t stream) {
    SplitMix random(stream);
    const Hidden hidden = hide(options, random);
    const auto count = static_cast<int64_t>(hidden.needles.size());
    // Places as shares of the text: in prose RULER takes different ones of 40 depths, elsewhere different lines.
    const bool lines = options.needles_around || haystack.name() == "noise";
    std::vector<double> shares;
    for (const int64_t depth : sample(random, 40, count))
      shares.push_back(std::round(static_cast<double>(depth) * 100 / 39) / 100);
    std::sort(shares.begin(), shares.end());
    const uint64_t place_seed = random();
    std::vector<std::string> sentences;
    std::vector<int64_t> places;
    SplitMix others(derive_seed(stream, {0x0eed}));
    const auto prompt = [&](int64_t n) {
      while (static_cast<int64_t>(sentences.size()) < n) {
        const auto i = static_cast<int64_t>(sentences.size());
        sentences.push_back(options.needles_around
                                ? niah_needle({drawn(options.key, others), drawn(options.value, others)}, options.value)
                            : lines ? std::string(kNoise)
                                    : without_trailing_space(haystack.sentence(stream, i)));
      }
      places.clear();
      if (lines) {
        SplitMix draw(place_seed);
        places = sample(draw, n, count);
        std::sort(places.begin(), places.end());
      } else {
        for (const double share : shares) places.push_back(static_cast<int64_t>(static_cast<double>(n) * share));
      }
      const auto some = std::span(sentences).first(static_cast<size_t>(n));
      const std::string context =
          lines ? needles_in_lines(some, hidden.needles, places) : needles_in_prose(some, hidden.needles, places);
      return niah_prompt(options, context, hidden.queries, hidden.answers);
    };
    const int64_t n = fill(name, cell, count, kNoLimit, encoder, kAnswer, prompt);
    const Prompt text = prompt(n);
    Sample made;
    made.max_new_tokens = kAnswer;
    made.expected = hidden.answers;
    if (hidden.answers.size() == 1) {
      for (int64_t i = 0; i < count; ++i)
        if (hidden.needles[static_cast<size_t>(i)].ends_with(hidden.answers.front() + "."))
          made.depth = 100.0 * static_cast<double>(places[static_cast<size_t>(i)]) / static_cast<double>(n);
    }
    made.facts = {{"needle", fmt::format("{}", fmt::join(hidden.needles, " "))}, {"question", text.lead.substr(1)}};
    return encoder.complete(text, std::move(made));
  });
  task.settings["haystack"] = options.needles_around ? "needles" : haystack.name();
  task.score = [](const Sample& made, const std::string& response, std::span<const int32_t>) {
    return match_all(response, made.expected);
  };
  return task;
}

}  // namespace longlora::eval

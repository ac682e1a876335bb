// RULER's synthetic tasks that need no judge (NVIDIA/RULER, scripts/data/synthetic/; arXiv 2404.06654): needles of several
// keys, values and queries, variable tracking, common words, frequent words. Prompts, sizes and scores (string_match_all)
// are RULER's, without its chat templates; the words are the program's own, the draws those of this program's seed.
// A length counts the prompt and the tokens that RULER lets a model write (128, 30, 120, 50).
#pragma once
#include "core/eval/tasks/haystack.h"
#include "core/eval/tasks/task.h"
#include "core/eval/tasks/words.h"

namespace longlora::eval {

enum class KeyKind { words, numbers, uuids };

struct NiahOptions {
  int keys = 1, values = 1, queries = 1;
  KeyKind key = KeyKind::words, value = KeyKind::numbers;
  bool needles_around = false;  // the haystack is made of other needles
};

// The RULER task of a name: niah_single_1, _2, _3, niah_multikey_1, _2, _3, niah_multivalue, niah_multiquery; niah_single and
// niah_multikey stand for niah_single_2 and niah_multikey_1. nullopt for another name. Single_1 has the noise haystack.
[[nodiscard]] std::optional<NiahOptions> niah_options(std::string_view name);

struct Needle {
  std::string key, value;
};
// "One of the special magic numbers for quiet-harbor is: 1234567."
[[nodiscard]] std::string niah_needle(const Needle& needle, KeyKind value);
[[nodiscard]] Prompt niah_prompt(const NiahOptions& options, const std::string& context,
                                 std::span<const std::string> queries, std::span<const std::string> answers);
// Needle i stands before sentence places[i] (ascending). In prose all is joined by spaces, as RULER does it: a needle at an
// end of the text, or behind another one, has the space of the empty stretch there too. As lines, by newlines.
[[nodiscard]] std::string needles_in_prose(std::span<const std::string> sentences, std::span<const std::string> needles,
                                           std::span<const int64_t> places);
[[nodiscard]] std::string needles_in_lines(std::span<const std::string> lines, std::span<const std::string> needles,
                                           std::span<const int64_t> places);
[[nodiscard]] Task niah_task(const std::string& name, const NiahOptions& options, uint64_t seed,
                             const PromptEncoder& encoder, const Haystack& haystack);

// Variable tracking: one chain of four hops in the noise. `variables` in the chain's order, one more than hops.
[[nodiscard]] std::string vt_context(std::span<const std::string> variables, const std::string& value, int64_t noises,
                                     std::span<const int64_t> places);
[[nodiscard]] Prompt vt_prompt(const std::string& context, std::span<const std::string> variables,
                               const std::string& value);
// An example goes before the question from 2048 tokens on (RULER, which starts at 4096, always gives one).
[[nodiscard]] Task vt_task(uint64_t seed, const PromptEncoder& encoder);

// Common words: ten words thirty times and the others three times (below 4096 tokens six times and once), an example before.
[[nodiscard]] Prompt cwe_prompt(std::span<const std::string> list, std::span<const std::string> common);
[[nodiscard]] Task cwe_task(uint64_t seed, const PromptEncoder& encoder);

// Frequent words: coded words with frequencies of a zeta distribution (alpha 2), the most frequent being noise ("...").
[[nodiscard]] Prompt fwe_prompt(std::span<const std::string> words, std::span<const std::string> answers);
// How often the word of each rank is among `n`: floor(n / (rank^2 zeta(2))), rank 1 first, up to the last one above 0.
[[nodiscard]] std::vector<int64_t> fwe_counts(int64_t n, int64_t vocabulary);
[[nodiscard]] Task fwe_task(uint64_t seed, const PromptEncoder& encoder);

}  // namespace longlora::eval

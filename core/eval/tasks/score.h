// How an answer is judged without a judge: the published string matches. All give a share between 0 and 1.
#pragma once
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace longlora::eval {

// RULER's string_match_all: the share of the expected texts that the response contains, upper and lower case alike.
[[nodiscard]] double match_all(std::string_view response, std::span<const std::string> expected);
// RULER's string_match_part: whether it contains one of them.
[[nodiscard]] double match_part(std::string_view response, std::span<const std::string> expected);

// LongEval's lines: whether the last number in the response is the expected one.
[[nodiscard]] double match_last_number(std::string_view response, std::string_view expected);

// LongEval's topics are judged by GPT there, which is told to forgive case and punctuation; here: whether the response
// names the topic, letters and digits compared alone, an article at the topic's start left out.
[[nodiscard]] double match_topic(std::string_view response, std::string_view topic);

// The needle: the share of the answer's words, split at white space, that are among the response's, as in the figures of
// Long-Context Data Engineering (arXiv 2402.10171, eval/needle/visualize.py), but of different words: there a word that
// the answer has twice counts once above and twice below, so that a perfect answer can miss 1.
[[nodiscard]] double match_words(std::string_view response, std::string_view answer);

}  // namespace longlora::eval

// LongEval's two tasks (DachengLi1/LongChat, longeval/): the value on one of many lines, and the first of many topics. The
// words around are LongEval's; the lines' names and the conversations are the program's own, so that scores are close to
// the published ones but not the same test cases.
#pragma once
#include "core/eval/tasks/task.h"

namespace longlora::eval {

// As many lines as leave room for the answer (100 tokens there), one asked for.
[[nodiscard]] Task lines_task(uint64_t seed, const PromptEncoder& encoder);

struct Line {
  std::string name;
  std::string value;
};
[[nodiscard]] Prompt lines_prompt(std::span<const Line> lines, size_t asked);

// As many conversations as leave room for the answer (50 tokens there); the first one's topic is asked for.
[[nodiscard]] Task topics_task(uint64_t seed, const PromptEncoder& encoder);

[[nodiscard]] Prompt topics_prompt(std::span<const std::string> conversations, const std::string& first_topic);

// The topic of number i in [0, kTopics), all different, and a conversation on it; `seed` picks its sentences.
inline constexpr int64_t kTopics = 12 * 48;
[[nodiscard]] std::string topic(int64_t i);
[[nodiscard]] std::string conversation(int64_t i, uint64_t seed);

}  // namespace longlora::eval

// A needle in a haystack (gkamradt/LLMTest_NeedleInAHaystack): a sentence that does not belong in a long text, and a
// question that it answers. Plain text gets the frame that base models are measured with (arXiv 2402.10171), a chat
// format the same words as the user's turn.
#pragma once
#include "core/eval/tasks/haystack.h"
#include "core/eval/tasks/task.h"

namespace longlora::eval {

struct NeedleOptions {
  std::string needle =
      "\nThe best thing to do in San Francisco is eat a sandwich and sit in Dolores Park on a sunny day.\n";
  std::string question = "What is the best thing to do in San Francisco?";
  std::string answer = "eat a sandwich and sit in Dolores Park on a sunny day.";  // what the score looks for
  int64_t max_new_tokens = 50;
  uint64_t seed = 42;
};

// The largest number of whole sentences that leaves room for max_new_tokens; the needle stands before the sentence at
// which the depth's share of the text's characters ends, at 100 behind the last. Encoder and haystack must outlive it.
[[nodiscard]] Task needle_task(const NeedleOptions& options, const PromptEncoder& encoder, const Haystack& haystack);

[[nodiscard]] Prompt needle_prompt(const NeedleOptions& options, const std::string& context);

// `sentences` as one text with the needle between two of them.
[[nodiscard]] std::string with_needle(std::span<const std::string> sentences, const std::string& needle, double depth);

}  // namespace longlora::eval

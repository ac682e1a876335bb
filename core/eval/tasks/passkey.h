// Passkey retrieval: a number in a text of repeated sentences, asked for at the end.
//
//   longlora  LongLoRA's passkey_retrivial.py to the letter (the prompt is Landmark Attention's, arXiv 2305.16300): the text
//             is cut by characters, int(3.75 * length // 1024 * 1024) of them; place and key (1 to 49999) are what numpy
//             draws for the seed; the answer is right when its token ids are the key's, all of them.
//   exact     the same prompt with the stated number of tokens, answer included; keys have five digits, the number stands
//             between two sentences at the depth asked for.
#pragma once
#include "core/eval/tasks/haystack.h"
#include "core/eval/tasks/task.h"

namespace longlora::eval {

struct PasskeyOptions {
  bool exact = false;
  uint64_t seed = 0;  // longlora: trial t gets numpy's seed + t
};

// The task refers to encoder and haystack (of `exact` only), which must outlive it.
[[nodiscard]] Task passkey_task(const PasskeyOptions& options, const PromptEncoder& encoder, const Haystack& haystack);

// The prompt around a key with the text before and after it.
[[nodiscard]] Prompt passkey_prompt(const std::string& before, const std::string& after, const std::string& key);

struct LongLoraPasskey {
  int64_t garbage = 0, before = 0;  // characters in all, and of these before the key
  std::string key;
};
// What LongLoRA draws for a nominal length and a seed.
[[nodiscard]] LongLoraPasskey longlora_passkey(int64_t length, uint32_t seed);
// Its prompt; depth in percent, negative: as drawn.
[[nodiscard]] Prompt longlora_prompt(LongLoraPasskey drawn, double depth);

}  // namespace longlora::eval

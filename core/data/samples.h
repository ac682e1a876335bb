// Conversations as samples to fine-tune on: tokens in a chat format, of which only the answers and the tokens that end
// them are learned, each sample whole and no longer than a row.
#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/data/instructions.h"
#include "core/data/token_source.h"
#include "core/text/chat.h"
#include "core/text/tokenizer.h"

namespace longlora::data {

// What becomes of a sample that is longer than a row.
enum class TooLong { truncate_material, drop, error };

struct SampleOptions {
  std::vector<std::string> patterns;  // core/data/glob.h
  text::ChatFormat format;
  int64_t length;  // of a row, in tokens
  TooLong too_long = TooLong::truncate_material;
  bool drop_empty = false;          // samples in which nothing is learned: left out instead of refused
  std::string name = "data.train";  // what the recipe calls the data
  int64_t limit = 0;                // this many samples, the first ones; 0: all
};

struct Sample {
  std::string where;
  text::ChatTokens tokens;  // at most SampleOptions::length
  int64_t cut = 0;          // tokens of material that were cut out
};

// What became of the entries; said before training.
struct SampleReport {
  int64_t samples = 0, tokens = 0, learned = 0;
  int64_t truncated = 0, dropped = 0, empty = 0;  // dropped: too long; empty: left out as nothing is learned

  // "200 samples, 31.2k tokens, 7.9k of them answers; 3 truncated, 1 dropped, 0 without an answer left out"
  [[nodiscard]] std::string line() const;
};

// The messages as the format wants them. Where the entry has an input, joined as the format's authors do: Alpaca's
// text for tasks with an input; LongLoRA's, with Llama-2's default system prompt; otherwise a line break.
[[nodiscard]] std::vector<text::ChatMessage> messages_for(text::ChatFormat format, const Instruction& instruction);

// Cuts `tokens`, which encode_chat gave for `messages`, to exactly `length` < their number: a piece out of the middle of
// the longest user message, where long material stands (LongAlpaca: "... Memorize the content.\n{material}\n...
// ends.\n{question}"). Its first and its last line (of each up to an eighth of `length`), all else of the conversation and
// every learned token stay. Empty when that leaves too little to cut. Returns the tokens cut out.
[[nodiscard]] std::optional<int64_t> cut_material(const text::Tokenizer& tokenizer, text::ChatFormat format,
                                                  std::span<const text::ChatMessage> messages, int64_t length,
                                                  text::ChatTokens& tokens);

// Hands the samples to `sink` in the order of the files, encoded on all cores. Exit 3 as read_instructions, and naming the
// entry when the format cannot hold it, when it is too long (TooLong::error, or nothing is left to cut) or when nothing is
// learned in it; 75 when stopped by a signal.
SampleReport read_samples(const text::Tokenizer& tokenizer, const SampleOptions& options,
                          const std::function<void(Sample&&)>& sink);

// All of them, each a document of its own. Exit 3 also when there is none.
[[nodiscard]] TokenSource open_samples(const text::Tokenizer& tokenizer, const SampleOptions& options,
                                       SampleReport& report);

}  // namespace longlora::data

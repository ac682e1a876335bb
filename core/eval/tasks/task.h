// A retrieval task makes prompts and scores answers: pure functions of a seed, a tokenizer and a length. What runs them
// over a grid of lengths and depths is core/eval/grid.h.
#pragma once
#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/text/chat.h"

namespace longlora::eval {

// One measurement: what a task's prompt depends on beside its settings.
struct Cell {
  int64_t length = 0;  // tokens of prompt and answer together, as the user named it
  double depth = -1;   // where the answer stands, in percent of the text; negative: the task draws the place
  int64_t trial = 0;

  bool operator==(const Cell&) const = default;
};

// A prompt as text, in the parts that a chat template puts in different places.
struct Prompt {
  std::string question;  // the text and the question: the user's turn
  std::string lead;      // how the answer begins: " The pass key is"
  std::string answer;    // what is right after it: " 12345"
};

struct Sample {
  std::vector<int32_t> prompt;        // what the model gets, BOS included where it expects one
  std::vector<int32_t> whole;         // the same with the answer behind it
  int64_t max_new_tokens = 0;         // how long an answer may be
  std::vector<std::string> expected;  // what the scorer looks for
  double depth = -1;                  // percent; negative: at several places, or at none
  nlohmann::ordered_json facts = nlohmann::ordered_json::object();  // goes into the cell's file: needle, question
};

struct Task {
  std::string name;                 // "passkey"
  nlohmann::ordered_json settings;  // everything beside the cell and the model that a result depends on
  bool takes_depth = false;         // whether Cell::depth places what is looked for
  bool nominal = false;             // prompts may be longer than Cell::length
  std::function<Sample(const Cell&)> make;
  // Between 0 and 1. `response` is the text of `tokens`, what the model wrote.
  std::function<double(const Sample&, const std::string& response, std::span<const int32_t> tokens)> score;
};

// A task whose sample for a length and a trial is made from a random stream of that length's and trial's own.
[[nodiscard]] Task seeded_task(const std::string& name, uint64_t seed,
                               std::function<Sample(const Cell&, uint64_t stream)> make);

// Prompts to token ids: as plain text, or wrapped by a chat format, the lead where the assistant's turn begins.
class PromptEncoder {
 public:
  // Exit 3 when the tokenizer lacks a token that the format needs. The tokenizer must outlive the encoder.
  PromptEncoder(const text::Tokenizer& tokenizer, std::optional<text::ChatFormat> format);

  [[nodiscard]] std::vector<int32_t> prompt(const Prompt& prompt) const { return encode(prompt, ""); }
  [[nodiscard]] std::vector<int32_t> whole(const Prompt& prompt) const { return encode(prompt, prompt.answer); }
  [[nodiscard]] int64_t count(const Prompt& prompt) const { return static_cast<int64_t>(encode(prompt, "").size()); }
  // The prompt's and the whole's ids; the rest of the sample stays as in `sample`.
  [[nodiscard]] Sample complete(const Prompt& prompt, Sample sample) const;

 private:
  [[nodiscard]] std::vector<int32_t> encode(const Prompt& prompt, const std::string& end) const;

  const text::Tokenizer& tokenizer_;
  std::optional<text::ChatFormat> format_;
};

// The first ids of the answer's text: where `whole` and `prompt` part. Usually prompt.size(); less where the answer's
// first token reaches back over the border.
[[nodiscard]] size_t answer_begin(const Sample& sample);

// The largest n in [least, most] with tokens(n) <= room, where tokens grows with n; negative when `least` is too long.
[[nodiscard]] int64_t fit(int64_t least, int64_t most, int64_t room, const std::function<int64_t(int64_t)>& tokens);

inline constexpr int64_t kNoLimit = int64_t{1} << 40;

// The same for a cell's length; exit 2 naming it when not even the least fits, or when `most` leaves a quarter of it empty.
[[nodiscard]] int64_t fit_or_refuse(const std::string& task, const Cell& cell, int64_t least, int64_t most,
                                    const std::function<int64_t(int64_t)>& tokens);

// The same for prompts of size n, where both their own answer and max_new_tokens must fit behind them.
[[nodiscard]] int64_t fill(const std::string& task, const Cell& cell, int64_t least, int64_t most,
                           const PromptEncoder& encoder, int64_t max_new_tokens,
                           const std::function<Prompt(int64_t)>& prompt);

}  // namespace longlora::eval

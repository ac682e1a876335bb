// What the three ways to generate share: one prompt (cmd/generate.cpp), a file of prompts, a conversation.
#pragma once
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "cmd/model_options.h"
#include "core/eval/answer.h"
#include "core/io/append_file.h"
#include "core/text/chat.h"

namespace longlora::cmd {

struct GenerateArguments {
  adapt::OpenOptions model;
  eval::AnswerOptions answer;
  std::optional<std::string> json;    // file, or "-"
  std::optional<std::string> format;  // of conversations; empty: the model's own
  bool beyond = false;                // more tokens than the RoPE settings cover

  // Exit 2 listing the formats when none is given and the model's own is not known.
  [[nodiscard]] text::ChatFormat chat_format() const;
};

// Exit 3 when it has no tokenizer.
[[nodiscard]] adapt::OpenedModel open_with_tokenizer(const GenerateArguments& arguments);

// The text's ids with the BOS that the model expects.
[[nodiscard]] std::vector<int32_t> with_bos(const text::Tokenizer& tokenizer, const std::string& text);

// {"prompt_tokens": n, "tokens": [...], "text": ..., "finish": ..., "tokens_per_s": x} into `object`.
void add_answer(nlohmann::ordered_json& object, int64_t prompt_tokens, const eval::Answer& answer);

// A JSON object a line, each on disk, or on standard output ("-"), when write() returns.
class JsonLines {
 public:
  explicit JsonLines(const std::string& target);
  void write(const nlohmann::ordered_json& object);

 private:
  std::optional<io::AppendFile> file_;
};

// --prompts FILE: all are read, tokenized and checked before the first is answered.
[[nodiscard]] Exit answer_prompts(const GenerateArguments& arguments, const std::string& file);

// --chat: lines of standard input are the user's turns; `first` is said before them.
[[nodiscard]] Exit chat(const GenerateArguments& arguments, const std::optional<std::string>& system,
                        const std::optional<std::string>& first);

}  // namespace longlora::cmd

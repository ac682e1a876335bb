// A conversation with a model: what was said stays in the key-value cache, so that only what is new goes through the model.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "core/eval/answer.h"
#include "core/text/chat.h"

namespace longlora::eval {

struct ConversationOptions {
  text::ChatFormat format;
  std::optional<std::string> system;
  AnswerOptions answer;
  int64_t limit;  // tokens of the whole conversation that the model covers
};

class Conversation {
 public:
  // `stop`: tokens that end an answer, besides the format's own. Exit 3 when the tokenizer lacks a token of the format.
  Conversation(const model::Llama& llama, std::shared_ptr<const text::Tokenizer> tokenizer, std::vector<int32_t> stop,
               ConversationOptions options);

  // The answer to the user's next message; both then belong to the conversation. It is what answer() gives to the tokens of
  // the whole conversation: those at the beginning that are in the cache stay there, where RoPE would turn them the same way
  // now (dynamic and longrope do not, beyond their original length). `show` as in answer(). At most what is left of the limit
  // is generated. A question that was interrupted before the first token is forgotten. Exit 2, the conversation unchanged, when nothing is left; exit 3 as encode_chat.
  Answer ask(const std::string& message, const std::function<void(const std::string&)>& show);
  void reset();

  [[nodiscard]] int64_t prompt_tokens() const { return prompt_tokens_; }  // of the last question, with all before it
  [[nodiscard]] int64_t reused_tokens() const { return reused_; }         // of these, those that the cache had
  [[nodiscard]] bool full() const { return full_; }                       // the last answer ended at the limit

 private:
  void keep_common(const std::vector<int32_t>& ids, int64_t capacity);

  const model::Llama& llama_;
  std::shared_ptr<const text::Tokenizer> tokenizer_;
  std::vector<int32_t> stop_;
  ConversationOptions options_;
  std::vector<text::ChatMessage> messages_;
  model::KvCache cache_;
  std::vector<int32_t> cached_;  // the tokens in it
  int64_t first_length_ = 0;     // the length by which the first of them were turned
  int64_t prompt_tokens_ = 0, reused_ = 0;
  bool full_ = false;
};

}  // namespace longlora::eval

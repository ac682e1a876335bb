// Conversations as the text that a chat model was trained on: the published formats of Llama-2, Llama-3, Mistral
// (v0.1 and v0.2), Vicuna (v1.1) and Alpaca, and of LongLoRA's own fine-tuning, by name.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/text/tokenizer.h"

namespace longlora::text {

enum class ChatFormat { llama2, llama3, mistral, vicuna, alpaca, longlora };

[[nodiscard]] std::span<const std::string> chat_format_names();
// Exit 2 with the nearest name when there is no such format.
[[nodiscard]] ChatFormat chat_format(std::string_view name);

enum class Role { system, user, assistant };

struct ChatMessage {
  Role role;
  std::string content;
};

// One stretch of the conversation's text.
struct ChatPiece {
  std::string text;
  bool answer = false;  // what the model is to learn: the assistant's words and the token that ends them
};

// The conversation's text in order, special tokens by name. After a user's turn it ends where the assistant's answer
// begins. `bos` and `eos` are the names of these tokens; formats whose text does not write them ignore `bos`.
// Exit 3 when the messages do not alternate user, assistant, .. (after a system message), or the format has no place
// for a system message or for several turns.
[[nodiscard]] std::vector<ChatPiece> render_chat(ChatFormat format, std::span<const ChatMessage> messages,
                                                 const std::string& bos, const std::string& eos);

struct ChatTokens {
  std::vector<int32_t> ids;    // with BOS
  std::vector<uint8_t> learn;  // of each id whether it belongs to an answer
};

// The ids of the whole text as the model's own tokenizer gives them; special tokens in messages count as such, as in
// the reference. A token over the border of an answer belongs to the answer. Exit 3 as render_chat, and when the
// tokenizer lacks the BOS, EOS or a special token of the format.
[[nodiscard]] ChatTokens encode_chat(const Tokenizer& tokenizer, ChatFormat format,
                                     std::span<const ChatMessage> messages);

// The token that ends an answer in this format. Exit 3 when the tokenizer lacks it.
[[nodiscard]] int32_t answer_end(const Tokenizer& tokenizer, ChatFormat format);

}  // namespace longlora::text

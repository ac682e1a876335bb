#include "core/text/chat.h"

#include <algorithm>
#include <optional>

#include "core/base/error.h"
#include "core/base/nearest.h"
#include "core/text/unicode.h"

namespace longlora::text {

namespace {

constexpr const char* kVicunaSystem =
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions.";
constexpr const char* kAlpacaTask =
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.";

// White space to Python's str.strip, which the templates call: the separators U+001C to U+001F are.
bool is_space(char32_t c) {
  return is_whitespace(c) || (c >= 0x1C && c <= 0x1F);
}

// Without white space at both ends.
std::string stripped(std::string_view text) {
  while (!text.empty() && is_space(utf8_at(text, 0))) text.remove_prefix(utf8_length(text[0]));
  while (!text.empty()) {
    size_t last = text.size() - 1;
    while (last > 0 && (static_cast<unsigned char>(text[last]) & 0xC0) == 0x80) --last;
    if (!is_space(utf8_at(text, last))) break;
    text = text.substr(0, last);
  }
  return std::string(text);
}

class Renderer {
 public:
  Renderer(ChatFormat format, std::span<const ChatMessage> messages, const std::string& bos, const std::string& eos)
      : format_(format), turns_(messages), bos_(bos), eos_(eos) {
    if (!turns_.empty() && turns_[0].role == Role::system) {
      system_ = turns_[0].content;
      turns_ = turns_.subspan(1);
    }
    if (turns_.empty()) input_error("a conversation needs a message from the user");
    for (size_t i = 0; i < turns_.size(); ++i)
      if (turns_[i].role != (i % 2 == 0 ? Role::user : Role::assistant))
        input_error("message {} of a conversation: user and assistant must take turns, the user first",
                    i + 1 + (system_ ? 1 : 0));
  }

  std::vector<ChatPiece> run() {
    switch (format_) {
      case ChatFormat::llama2:
        llama2();
        break;
      case ChatFormat::llama3:
        llama3();
        break;
      case ChatFormat::mistral:
        mistral();
        break;
      case ChatFormat::vicuna:
        vicuna();
        break;
      case ChatFormat::alpaca:
        alpaca();
        break;
      case ChatFormat::longlora:
        longlora();
        break;
    }
    return std::move(pieces_);
  }

 private:
  void prompt(const std::string& text) {
    if (!pieces_.empty() && !pieces_.back().answer)
      pieces_.back().text += text;
    else
      pieces_.push_back({text, false});
  }
  void answer(const std::string& text) { pieces_.push_back({text, true}); }
  [[nodiscard]] bool is_user(size_t i) const { return turns_[i].role == Role::user; }
  [[nodiscard]] bool asks() const { return turns_.back().role == Role::user; }

  void llama2() {
    for (size_t i = 0; i < turns_.size(); ++i) {
      std::string content = turns_[i].content;
      if (i == 0 && system_) content = "<<SYS>>\n" + *system_ + "\n<</SYS>>\n\n" + content;
      if (is_user(i))
        prompt(bos_ + "[INST] " + stripped(content) + " [/INST]");
      else
        answer(fmt::format(" {} {}", stripped(content), eos_));
    }
  }

  void llama3() {
    const auto header = [](const char* role) {
      return std::string("<|start_header_id|>") + role + "<|end_header_id|>\n\n";
    };
    prompt(bos_);
    if (system_) prompt(header("system") + stripped(*system_) + "<|eot_id|>");
    for (size_t i = 0; i < turns_.size(); ++i) {
      prompt(header(is_user(i) ? "user" : "assistant"));
      const std::string text = stripped(turns_[i].content) + "<|eot_id|>";
      is_user(i) ? prompt(text) : answer(text);
    }
    if (asks()) prompt(header("assistant"));
  }

  void mistral() {
    if (system_)
      input_error("the chat format 'mistral' has no place for a system message; put it into the first user message");
    prompt(bos_);
    for (size_t i = 0; i < turns_.size(); ++i) {
      if (is_user(i))
        prompt("[INST] " + turns_[i].content + " [/INST]");
      else
        answer(turns_[i].content + eos_);
    }
  }

  void vicuna() {
    prompt(system_.value_or(kVicunaSystem) + " ");
    for (size_t i = 0; i < turns_.size(); ++i) {
      if (is_user(i)) {
        prompt("USER: " + turns_[i].content + " ASSISTANT:");
      } else {
        answer(" " + turns_[i].content + eos_);
      }
    }
  }

  void alpaca() {
    if (turns_.size() > 2) input_error("the chat format 'alpaca' has one instruction and one answer, no further turns");
    prompt(system_.value_or(kAlpacaTask) + "\n\n### Instruction:\n" + turns_[0].content + "\n\n### Response:");
    if (!asks()) answer(turns_[1].content + eos_);
  }

  // What LongLoRA's supervised-fine-tune.py writes: "prompt_llama2", and "prompt_input_llama2" where there is a system
  // message. Spaces and line breaks stand where they do there, which is not where Llama-2 has them.
  void longlora() {
    for (size_t i = 0; i < turns_.size(); ++i) {
      if (!is_user(i))
        answer(turns_[i].content + eos_);
      else if (i == 0 && system_)
        prompt("[INST] <<SYS>>\n" + *system_ + "\n<</SYS>> \n\n " + turns_[i].content + " [/INST]");
      else
        prompt("[INST]" + turns_[i].content + "[/INST]");
    }
  }

  ChatFormat format_;
  std::span<const ChatMessage> turns_;
  std::optional<std::string> system_;
  const std::string& bos_;
  const std::string& eos_;
  std::vector<ChatPiece> pieces_;
};

std::string name_of(const Tokenizer& tokenizer, std::optional<int32_t> id, const char* what) {
  if (!id) input_error("the tokenizer has no {} token, which the chat format needs", what);
  return tokenizer.decode(std::span(&*id, 1), false);
}

size_t common_prefix(const std::vector<int32_t>& a, const std::vector<int32_t>& b) {
  return static_cast<size_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin());
}

}  // namespace

std::span<const std::string> chat_format_names() {
  static const std::string names[] = {"llama-2", "llama-3", "mistral",
                                      "vicuna",  "alpaca",  "longlora"};  // in the enum's order
  return names;
}

ChatFormat chat_format(std::string_view name) {
  const auto names = chat_format_names();
  const auto found = std::find(names.begin(), names.end(), name);
  if (found == names.end())
    usage_error("unknown chat format '{}'{} (known: {})", name, did_you_mean(name, names), fmt::join(names, ", "));
  return static_cast<ChatFormat>(found - names.begin());
}

std::vector<ChatPiece> render_chat(ChatFormat format, std::span<const ChatMessage> messages, const std::string& bos,
                                   const std::string& eos) {
  return Renderer(format, messages, bos, eos).run();
}

ChatTokens encode_chat(const Tokenizer& tokenizer, ChatFormat format, std::span<const ChatMessage> messages) {
  const bool writes_bos = format == ChatFormat::llama2 || format == ChatFormat::llama3 || format == ChatFormat::mistral;
  if (format == ChatFormat::llama3)
    for (const char* token : {"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"})
      if (!tokenizer.token_id(token))
        input_error("the tokenizer has no token '{}', which the chat format 'llama-3' needs", token);
  const std::string bos = writes_bos ? name_of(tokenizer, tokenizer.bos(), "BOS") : "";
  const auto pieces = render_chat(format, messages, bos, name_of(tokenizer, tokenizer.eos(), "EOS"));

  const auto encode = [&](const std::string& text) {
    auto ids = tokenizer.encode(text, true);
    if (!writes_bos && tokenizer.adds_bos()) ids.insert(ids.begin(), *tokenizer.bos());
    return ids;
  };
  std::string text;
  for (const ChatPiece& piece : pieces) text += piece.text;
  ChatTokens out;
  out.ids = encode(text);
  out.learn.resize(out.ids.size());
  // Where a piece begins among the ids: as far as they agree with those of the text before it.
  std::string before;
  for (const ChatPiece& piece : pieces) {
    const size_t begin = piece.answer ? common_prefix(out.ids, encode(before)) : 0;
    before += piece.text;
    if (!piece.answer) continue;
    const size_t end = before.size() == text.size() ? out.ids.size() : common_prefix(out.ids, encode(before));
    std::fill(out.learn.begin() + static_cast<ptrdiff_t>(begin), out.learn.begin() + static_cast<ptrdiff_t>(end),
              uint8_t{1});
  }
  return out;
}

int32_t answer_end(const Tokenizer& tokenizer, ChatFormat format) {
  const auto end = format == ChatFormat::llama3 ? tokenizer.token_id("<|eot_id|>") : tokenizer.eos();
  if (!end) input_error("the tokenizer has no token that ends an answer in the chat format");
  return *end;
}

}  // namespace longlora::text

// Prompts to answer one after the other, out of a .jsonl file (also .zst): an object a line, with "prompt" (text as it is)
// or "messages" (a conversation that ends with the user's turn: a list of {"role", "content"}), and perhaps "id".
#pragma once
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "core/base/file.h"
#include "core/text/chat.h"

namespace longlora::data {

struct Prompt {
  std::string where;                 // "file.jsonl:12", for messages
  std::optional<nlohmann::json> id;  // passed through: text or a whole number
  std::string text;                  // of "prompt"; empty with messages
  std::vector<text::ChatMessage> messages;
};

// All of them; blank lines are passed over. Exit 3 with file:line for a line that is none, and when there is none.
[[nodiscard]] std::vector<Prompt> read_prompts(const fs::path& path);

}  // namespace longlora::data

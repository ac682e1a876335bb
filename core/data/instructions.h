// Reads conversations for fine-tuning out of .json (a list of entries) and .jsonl (an entry a line) files, each also
// .zst, in constant memory. What an entry is shows by its keys:
//
//   conversations   ShareGPT: a list of {"from": human | gpt | system, "value": text}
//   messages        a list of {"role": user | assistant | system, "content": text}
//   instruction     Alpaca, LongAlpaca: with "output" and, where it has one, "input"
//   input, output   LongQLoRA
#pragma once
#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/base/file.h"
#include "core/text/chat.h"

namespace longlora::data {

struct Instruction {
  std::string where;  // "file.json: entry 12", for messages
  std::vector<text::ChatMessage> messages;
  std::string input;  // Alpaca's "input", which belongs to the first message; how they are joined is the chat format's
};

// Hands every entry of `path` to `sink`, in order, until it returns false. Exit 3 with file, number of the entry (from
// 1) and key for an entry that is none of the above, and for damaged JSON or .zst data. Blank lines of .jsonl are passed
// over. Whether users and assistants take turns is the chat format's business.
void read_instructions(const fs::path& path, const std::function<bool(Instruction&&)>& sink);

// For other files of entries. Exit 3 beginning with `where`: a line of .jsonl that is no JSON; the list of an entry's
// "messages", taken out of it, that is none.
[[nodiscard]] nlohmann::json parse_line(const std::string& line, const std::string& where);
[[nodiscard]] std::vector<text::ChatMessage> take_messages(nlohmann::json& entry, const std::string& where);

}  // namespace longlora::data

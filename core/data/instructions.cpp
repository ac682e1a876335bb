#include "core/data/instructions.h"

#include <istream>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/base/error.h"
#include "core/data/input_buffer.h"
#include "core/data/reader.h"

namespace longlora::data {
namespace {

using Json = nlohmann::json;
using text::ChatMessage;
using text::Role;

std::string take_text(Json& object, const char* key, const std::string& where) {
  const auto found = object.find(key);
  if (found == object.end()) input_error("{}: the key \"{}\" is missing", where, key);
  if (!found->is_string()) input_error("{}: \"{}\" is {}, text is needed", where, key, found->type_name());
  return std::move(found->get_ref<std::string&>());
}

Role role_of(const std::string& name, const char* key, const std::string& where) {
  static const std::pair<const char*, Role> known[] = {{"system", Role::system},
                                                       {"human", Role::user},
                                                       {"user", Role::user},
                                                       {"gpt", Role::assistant},
                                                       {"assistant", Role::assistant}};
  for (const auto& [word, role] : known)
    if (name == word) return role;
  input_error("{}: \"{}\" is '{}'; known are human or user, gpt or assistant, and system", where, key, name);
}

std::vector<ChatMessage> take_list(Json& entry, const char* list, const char* role, const char* content,
                                   const std::string& where) {
  Json& turns = entry[list];
  if (!turns.is_array() || turns.empty()) input_error("{}: \"{}\" must be a list of messages", where, list);
  std::vector<ChatMessage> messages;
  for (Json& turn : turns) {
    const std::string here = fmt::format("{}: {}[{}]", where, list, messages.size());
    if (!turn.is_object()) input_error("{}: is {}, an object is needed", here, turn.type_name());
    const Role speaker = role_of(take_text(turn, role, here), role, here);
    messages.push_back({speaker, take_text(turn, content, here)});
  }
  return messages;
}

Instruction instruction_of(Json& entry, std::string where) {
  if (!entry.is_object()) input_error("{}: is {}, an object is needed", where, entry.type_name());
  Instruction out;
  if (entry.contains("conversations")) {
    out.messages = take_list(entry, "conversations", "from", "value", where);
  } else if (entry.contains("messages")) {
    out.messages = take_list(entry, "messages", "role", "content", where);
  } else if (entry.contains("instruction")) {
    out.messages = {{Role::user, take_text(entry, "instruction", where)},
                    {Role::assistant, take_text(entry, "output", where)}};
    if (entry.contains("input") && !entry["input"].is_null()) out.input = take_text(entry, "input", where);
  } else if (entry.contains("input")) {
    out.messages = {{Role::user, take_text(entry, "input", where)},
                    {Role::assistant, take_text(entry, "output", where)}};
  } else {
    input_error("{}: has none of the keys \"conversations\", \"messages\", \"instruction\" and \"input\"", where);
  }
  out.where = std::move(where);
  return out;
}

// What is wrong, without the parser's own place and without the text read last, which may be a whole book.
std::string reason(const Json::parse_error& error) {
  std::string what = error.what();
  if (const size_t place = what.find("column "); place != std::string::npos)
    what = what.substr(std::min(what.size(), what.find(": ", place) + 2));
  return what.substr(0, what.find("; last read"));
}

void read_lines(const fs::path& path, const std::function<bool(Instruction&&)>& sink) {
  InputBuffer input(path, InvalidUtf8::replace);
  std::string line;
  int64_t entries = 0;
  for (int64_t number = 1; input.read_line(line, kMaxDocumentBytes); ++number) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    ++entries;
    std::string where = fmt::format("{}:{}: entry {}", path.string(), number, entries);
    Json entry = parse_line(line, where);
    if (!sink(instruction_of(entry, std::move(where)))) return;
  }
}

void read_list(const fs::path& path, const std::function<bool(Instruction&&)>& sink) {
  struct Enough {};
  InputBuffer input(path, InvalidUtf8::replace);
  std::istream stream(&input);
  int64_t entries = 0;
  // Each entry is taken when it is complete and then dropped by the parser.
  const auto take = [&](int depth, Json::parse_event_t event, Json& value) {
    if (depth == 0 && event != Json::parse_event_t::array_start && event != Json::parse_event_t::array_end)
      input_error("{}: a list of entries is needed ([ ... ]); a file with an entry a line is called .jsonl",
                  path.string());
    const bool complete = event == Json::parse_event_t::object_end || event == Json::parse_event_t::array_end ||
                          event == Json::parse_event_t::value;
    if (depth != 1 || !complete) return true;
    ++entries;
    if (!sink(instruction_of(value, fmt::format("{}: entry {}", path.string(), entries)))) throw Enough{};
    return false;
  };
  try {
    [[maybe_unused]] const Json rest = Json::parse(stream, take);
  } catch (const Json::parse_error& error) {
    input_error("{}:{}: not valid JSON after entry {}: {}", path.string(), input.line(), entries, reason(error));
  } catch (const Enough&) {
  }
}

}  // namespace

Json parse_line(const std::string& line, const std::string& where) {
  try {
    return Json::parse(line);
  } catch (const Json::parse_error& error) {
    input_error("{} is not valid JSON: {}", where, reason(error));
  }
}

std::vector<ChatMessage> take_messages(Json& entry, const std::string& where) {
  return take_list(entry, "messages", "role", "content", where);
}

void read_instructions(const fs::path& path, const std::function<bool(Instruction&&)>& sink) {
  switch (input_kind(path)) {
    case InputKind::json_lines:
      return read_lines(path, sink);
    case InputKind::json:
      return read_list(path, sink);
    case InputKind::text:
    case InputKind::tokens:
      input_error("{}: instructions are read from .json and .jsonl files, each also with .zst", path.string());
  }
}

}  // namespace longlora::data

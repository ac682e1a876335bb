#include "core/data/prompts.h"

#include "core/base/error.h"
#include "core/data/input_buffer.h"
#include "core/data/instructions.h"
#include "core/data/reader.h"

namespace longlora::data {
namespace {

Prompt prompt_of(nlohmann::json& entry, const std::string& where) {
  Prompt out{.where = where, .id = {}, .text = {}, .messages = {}};
  if (!entry.is_object()) input_error("{}: is {}, an object is needed", where, entry.type_name());
  if (entry.contains("prompt") == entry.contains("messages"))
    input_error("{}: one of the keys \"prompt\" and \"messages\" is needed", where);
  if (const auto id = entry.find("id"); id != entry.end()) {
    if (!id->is_string() && !id->is_number_integer())
      input_error("{}: \"id\" is {}, text or a whole number is needed", where, id->type_name());
    out.id = *id;
  }
  if (entry.contains("messages")) {
    out.messages = take_messages(entry, where);
    if (out.messages.back().role != text::Role::user)
      input_error("{}: the last of the messages must be the user's, as that is what is answered", where);
    return out;
  }
  if (!entry["prompt"].is_string())
    input_error("{}: \"prompt\" is {}, text is needed", where, entry["prompt"].type_name());
  out.text = entry["prompt"].get<std::string>();
  return out;
}

}  // namespace

std::vector<Prompt> read_prompts(const fs::path& path) {
  std::vector<Prompt> prompts;
  InputBuffer input(path, InvalidUtf8::replace);
  std::string line;
  for (int64_t number = 1; input.read_line(line, kMaxDocumentBytes); ++number) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const std::string where = fmt::format("{}:{}", path.string(), number);
    nlohmann::json entry = parse_line(line, where);
    prompts.push_back(prompt_of(entry, where));
  }
  if (prompts.empty()) input_error("{}: has no prompt; an object a line is needed: {{\"prompt\": ...}}", path.string());
  return prompts;
}

}  // namespace longlora::data

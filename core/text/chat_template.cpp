#include "core/text/chat_template.h"

#include <fmt/ranges.h>

#include "core/base/error.h"
#include "core/base/file.h"
#include "core/text/json_fields.h"

namespace longlora::text {
namespace {

// The template's text; "" where there is none. A list has several by name, of which "default" is the chat's.
std::string template_in(const fs::path& folder) {
  if (fs::exists(folder / "chat_template.jinja")) return read_file(folder / "chat_template.jinja");
  const fs::path file = folder / "tokenizer_config.json";
  if (!fs::exists(file)) return "";
  const Json config = parse_json(read_file(file), file.string());
  const auto found = config.is_object() ? config.find("chat_template") : config.end();
  if (found == config.end() || found->is_null()) return "";
  if (found->is_string()) return found->get<std::string>();
  if (found->is_array()) {
    for (const Json& one : *found)
      if (optional_or<std::string>(one, "name", file.string(), "") == "default")
        return required<std::string>(one, "template", file.string() + ": chat_template");
  }
  input_error("{}: \"chat_template\" is no text", file.string());
}

}  // namespace

std::optional<ChatFormat> recognize_chat_template(std::string_view jinja) {
  const auto has = [&](std::string_view part) { return jinja.find(part) != jinja.npos; };
  if (has("tools")) return std::nullopt;  // every template that has them writes more than these formats
  if (has("<|start_header_id|>") && has("<|eot_id|>")) return ChatFormat::llama3;
  if (has("[INST] ") && has(" [/INST]")) return has("<<SYS>>") ? ChatFormat::llama2 : ChatFormat::mistral;
  if (has("USER: ") && has("ASSISTANT:") && has("A chat between a curious user")) return ChatFormat::vicuna;
  if (has("### Instruction:") && has("### Response:") && has("Below is an instruction")) return ChatFormat::alpaca;
  return std::nullopt;
}

ChatFormat chat_format_of(const fs::path& folder, std::string_view key) {
  const std::string jinja = template_in(folder);
  if (const auto format = recognize_chat_template(jinja)) return *format;
  usage_error("{}: {}; say which format to use: {}=NAME, one of {}", folder.string(),
              jinja.empty() ? "the tokenizer has no chat template" : "the chat template is none of the known ones", key,
              fmt::join(chat_format_names(), ", "));
}

}  // namespace longlora::text

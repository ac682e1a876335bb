#include "core/text/chat_template.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <set>
#include <utility>

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

// What a template can write beside the messages and the tokenizer's own tokens: the literals of its expressions and the text
// between them. Roles that it compares with, and the texts of its errors, are not among them.
std::set<std::string> written_by(std::string_view jinja) {
  std::set<std::string> written;
  const auto take = [&](std::string text) {
    static const std::set<std::string> kNames = {"", "role", "content", "system", "user", "assistant"};
    if (!kNames.contains(text)) written.insert(std::move(text));
  };
  bool inside = false, raising = false;
  std::string between;
  for (size_t i = 0; i < jinja.size(); ++i) {
    const std::string_view here = jinja.substr(i);
    if (!inside && (here.starts_with("{{") || here.starts_with("{%") || here.starts_with("{#"))) {
      inside = true;
      take(std::exchange(between, {}));
      ++i;
    } else if (inside && (here.starts_with("}}") || here.starts_with("%}") || here.starts_with("#}"))) {
      inside = raising = false;
      ++i;
    } else if (inside && (here[0] == '\'' || here[0] == '"')) {
      std::string text;
      for (++i; i < jinja.size() && jinja[i] != here[0]; ++i) {
        if (jinja[i] == '\\' && i + 1 < jinja.size()) {
          ++i;
          text += jinja[i] == 'n' ? '\n' : jinja[i];
        } else {
          text += jinja[i];
        }
      }
      if (!raising) take(std::move(text));
    } else if (inside) {
      raising = raising || here.starts_with("raise_exception");
    } else if (std::isspace(static_cast<unsigned char>(here[0])) == 0) {
      between += here[0];
    }
  }
  take(std::move(between));
  return written;
}

}  // namespace

std::optional<ChatFormat> recognize_chat_template(std::string_view jinja) {
  // What a template of the format must write, and what it may write beside that.
  struct Texts {
    ChatFormat format;
    std::set<std::string> all, perhaps;
  };
  static const Texts kKnown[] = {
      {ChatFormat::llama2, {"[INST] ", " [/INST]", "<<SYS>>\n", "\n<</SYS>>\n\n", " "}, {}},
      {ChatFormat::llama3,
       {"<|start_header_id|>", "<|end_header_id|>\n\n", "<|eot_id|>"},
       {"<|start_header_id|>assistant<|end_header_id|>\n\n", "<|begin_of_text|>"}},
      {ChatFormat::mistral, {"[INST] ", " [/INST]"}, {}},
  };
  const std::set<std::string> written = written_by(jinja);
  for (const Texts& known : kKnown) {
    const auto fits = [&](const std::string& text) { return known.all.contains(text) || known.perhaps.contains(text); };
    if (std::ranges::includes(written, known.all) && std::ranges::all_of(written, fits)) return known.format;
  }
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

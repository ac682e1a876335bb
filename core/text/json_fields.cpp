#include "core/text/json_fields.h"

#include <algorithm>

namespace longlora::text {

Json parse_json(std::string_view bytes, const std::string& file) {
  try {
    return Json::parse(bytes);
  } catch (const Json::exception& e) {
    input_error("{}: not valid JSON: {}", file, e.what());
  }
}

void allow_keys(const Json& object, const std::string& where, std::initializer_list<std::string_view> known) {
  if (!object.is_object()) input_error("{}: an object is expected here", where);
  for (const auto& item : object.items())
    if (std::find(known.begin(), known.end(), item.key()) == known.end())
      input_error("{}: the setting '{}' is not supported", where, item.key());
}

std::string type_of(const Json& object, const std::string& where) {
  if (!object.is_object()) input_error("{}: an object is expected here", where);
  return required<std::string>(object, "type", where);
}

void unsupported_type(const std::string& type, const std::string& where) {
  input_error("{}: the type '{}' is not supported; tokenizers of the Llama, Mistral and GPT-2 kinds are", where, type);
}

Pattern pattern_of(const Json& object, const std::string& where) {
  const auto found = object.find("pattern");
  if (found == object.end()) input_error("{}: 'pattern' is missing", where);
  const std::string inside = where + ".pattern";
  allow_keys(*found, inside, {"String", "Regex"});
  if (found->size() != 1) input_error("{}: one of 'String' and 'Regex' is expected", inside);
  const bool is_regex = found->contains("Regex");
  return {is_regex, required<std::string>(*found, is_regex ? "Regex" : "String", inside)};
}

}  // namespace longlora::text

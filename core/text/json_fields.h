// Reading the parts of a tokenizer.json strictly: what we do not know is an error that names it, never
// skipped. `where` is the file and the path inside it, e.g. "dir/tokenizer.json:
// pre_tokenizer.pretokenizers[1]".
#pragma once
#include <initializer_list>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "core/base/error.h"

namespace longlora::text {

using Json = nlohmann::json;

// The file as JSON; exit 3 with the place of the mistake.
[[nodiscard]] Json parse_json(std::string_view bytes, const std::string& file);

// Exit 3 when `object` is no object or has a key besides `known`.
void allow_keys(const Json& object, const std::string& where, std::initializer_list<std::string_view> known);

// The component's "type"; exit 3 without one.
[[nodiscard]] std::string type_of(const Json& object, const std::string& where);
[[noreturn]] void unsupported_type(const std::string& type, const std::string& where);

// object[key] as T; exit 3 when it is missing or of another kind.
template <class T>
[[nodiscard]] T required(const Json& object, const char* key, const std::string& where) {
  const auto found = object.find(key);
  if (found == object.end()) input_error("{}: '{}' is missing", where, key);
  try {
    return found->get<T>();
  } catch (const Json::exception&) {
    input_error("{}: '{}' has the wrong kind of value", where, key);
  }
}

// object[key] as T, or `otherwise` when it is missing or null.
template <class T>
[[nodiscard]] T optional_or(const Json& object, const char* key, const std::string& where, T otherwise) {
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return otherwise;
  return required<T>(object, key, where);
}

// A {"String": ..} or {"Regex": ..} pattern. Literal strings are searched as such, not as expressions.
struct Pattern {
  bool is_regex = false;
  std::string text;
};
[[nodiscard]] Pattern pattern_of(const Json& object, const std::string& where);

}  // namespace longlora::text

#include "core/io/json_file.h"

#include "core/base/error.h"

namespace longlora::io {
namespace {

// The deepest nesting of objects and lists.
int64_t depth_of(std::string_view text) {
  int64_t depth = 0, deepest = 0;
  bool inside = false;  // a string
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (inside && c == '\\') ++i;
    if (c == '"') inside = !inside;
    if (inside) continue;
    if (c == '[' || c == '{') deepest = std::max(deepest, ++depth);
    if (c == ']' || c == '}') --depth;
  }
  return deepest;
}

}  // namespace

nlohmann::ordered_json read_json(const fs::path& file) {
  constexpr int64_t kDeepest = 100;
  const std::string text = read_file(file);
  if (depth_of(text) > kDeepest) input_error("{}: is nested more than {} levels deep", file.string(), kDeepest);
  try {
    return nlohmann::ordered_json::parse(text);
  } catch (const nlohmann::ordered_json::exception& error) {
    input_error("{}: {}", file.string(), error.what());
  }
}

}  // namespace longlora::io

// JSON with comments, parsed so that every value knows its line and duplicate keys survive to be reported.
#pragma once
#include <cstddef>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

namespace longlora::recipe {

struct Node {
  std::string key;       // in its object; "" for list entries and the root
  size_t line = 0;       // of the value, from 1 (of the bracket that opens an object or list)
  nlohmann::json value;  // a scalar; {} or [] when the contents are in `children`
  std::vector<Node> children;

  // The value with its entries, as plain JSON; objects stay empty.
  [[nodiscard]] nlohmann::json list() const;
};

struct SyntaxError : std::runtime_error {
  SyntaxError(size_t at, const std::string& what) : std::runtime_error(what), line(at) {}
  size_t line;
};

// Throws SyntaxError, also for more than 32 levels.
[[nodiscard]] Node parse_located(std::string_view text);

}  // namespace longlora::recipe

// What Split and Replace look for: a literal string or a regular expression.
#pragma once
#include <optional>
#include <string>

#include "core/text/json_fields.h"
#include "core/text/regex.h"

namespace longlora::text {

class Matcher {
 public:
  // Exit 3 with `where` when the expression cannot be used.
  Matcher(const Pattern& pattern, const std::string& where) : literal_(pattern.text) {
    if (pattern.is_regex) regex_.emplace(pattern.text, where);
  }

  // Each match in order as byte offsets. An empty literal matches nowhere.
  void for_each(std::string_view text, RegexWorkspace& workspace, FunctionRef<void(size_t, size_t)> found) const {
    if (regex_) return regex_->for_each_match(text, workspace, found);
    if (literal_.empty()) return;
    for (size_t at = 0; (at = text.find(literal_, at)) != std::string_view::npos; at += literal_.size())
      found(at, at + literal_.size());
  }

  // `text` with each match replaced.
  [[nodiscard]] std::string replace(std::string_view text, std::string_view by, RegexWorkspace& workspace) const {
    std::string out;
    out.reserve(text.size() + text.size() / 4);
    size_t done = 0;
    for_each(text, workspace, [&](size_t begin, size_t end) {
      out.append(text.substr(done, begin - done)).append(by);
      done = end;
    });
    out.append(text.substr(done));
    return out;
  }

 private:
  std::string literal_;
  std::optional<Regex> regex_;
};

}  // namespace longlora::text

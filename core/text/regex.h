// The regular expressions of tokenizer.json, run by PCRE2 with its JIT compiler.
//
// They are written for Oniguruma (Ruby syntax, Unicode 16), which differs from PCRE2 in places: what \s, \w
// and \d contain, ^ and $ that match at every line, {n,m}+ that repeats, the Unicode version of \p{..}. An
// expression is therefore translated first; a construct whose meaning we do not know to be the same is
// refused.
#pragma once
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "core/text/function_ref.h"

namespace longlora::text {

// The PCRE2 spelling of an Oniguruma expression. Exit 3 with `where` and the part that is not supported.
[[nodiscard]] std::string translate_regex(std::string_view pattern, const std::string& where);

// The memory that matching needs, allocated at the first match; one per thread of execution.
class RegexWorkspace {
 public:
  RegexWorkspace();
  ~RegexWorkspace();
  RegexWorkspace(const RegexWorkspace&) = delete;
  RegexWorkspace& operator=(const RegexWorkspace&) = delete;

 private:
  friend class Regex;
  struct State;
  [[nodiscard]] const State& state();
  std::unique_ptr<State> state_;
};

// A compiled expression. Matching is const and safe from several threads, each with its own workspace.
class Regex {
 public:
  // Exit 3 with `where` and the reason when the expression cannot be used.
  Regex(std::string_view pattern, const std::string& where);
  ~Regex();
  Regex(Regex&&) noexcept;
  Regex& operator=(Regex&&) noexcept;

  // Calls found(begin, end), byte offsets, for each match in order; `text` is valid UTF-8. An empty match
  // directly behind the previous match does not count. Exit 1 when PCRE2 runs out of memory for a match.
  void for_each_match(std::string_view text, RegexWorkspace& workspace,
                      FunctionRef<void(size_t begin, size_t end)> found) const;

 private:
  struct Code;
  std::unique_ptr<Code> code_;
};

}  // namespace longlora::text

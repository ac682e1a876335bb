// The patterns of an adapter_config.json that module names are matched with.
#pragma once
#include <memory>
#include <string>

namespace longlora::io {

// PEFT's rule (get_pattern_key): the pattern, a regular expression, matches the whole name or the part after some dot.
// Python's expressions of this kind mean the same to PCRE2, which runs them with a limit on its work.
class NamePattern {
 public:
  // Exit 3 with `where` and the reason when it is no expression.
  NamePattern(const std::string& pattern, const std::string& where);
  ~NamePattern();
  NamePattern(const NamePattern&) = delete;
  NamePattern& operator=(const NamePattern&) = delete;

  // Exit 3 when the work that this name takes is beyond all measure.
  [[nodiscard]] bool matches(const std::string& name) const;

 private:
  struct Code;
  std::unique_ptr<Code> code_;
};

}  // namespace longlora::io

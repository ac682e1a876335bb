#include "core/io/name_pattern.h"

#include <pcre2.h>

#include "core/base/error.h"

namespace longlora::io {
namespace {

constexpr uint32_t kMostSteps = 1'000'000;

std::string reason(int error) {
  PCRE2_UCHAR text[256];
  pcre2_get_error_message(error, text, sizeof text);
  return reinterpret_cast<const char*>(text);
}

PCRE2_SPTR bytes(const std::string& text) {
  return reinterpret_cast<PCRE2_SPTR>(text.data());
}

}  // namespace

struct NamePattern::Code {
  std::string pattern, where;
  pcre2_code* code = nullptr;
  pcre2_match_data* data = nullptr;
  pcre2_match_context* context = nullptr;
  ~Code() {
    pcre2_match_context_free(context);
    pcre2_match_data_free(data);
    pcre2_code_free(code);
  }
};

NamePattern::NamePattern(const std::string& pattern, const std::string& where) : code_(std::make_unique<Code>()) {
  code_->pattern = pattern;
  code_->where = where;
  const std::string whole = fmt::format("(?:.*\\.)?(?:{})", pattern);
  int error = 0;
  PCRE2_SIZE offset = 0;
  code_->code = pcre2_compile(bytes(whole), whole.size(), PCRE2_ANCHORED | PCRE2_ENDANCHORED, &error, &offset, nullptr);
  if (code_->code == nullptr) input_error("{}: '{}' is no pattern: {}", where, pattern, reason(error));
  code_->data = pcre2_match_data_create(1, nullptr);
  code_->context = pcre2_match_context_create(nullptr);
  pcre2_set_match_limit(code_->context, kMostSteps);
}

NamePattern::~NamePattern() = default;

bool NamePattern::matches(const std::string& name) const {
  const int found = pcre2_match(code_->code, bytes(name), name.size(), 0, 0, code_->data, code_->context);
  if (found < 0 && found != PCRE2_ERROR_NOMATCH) {
    input_error("{}: the pattern '{}' cannot be matched: {}", code_->where, code_->pattern, reason(found));
  }
  return found >= 0;
}

}  // namespace longlora::io

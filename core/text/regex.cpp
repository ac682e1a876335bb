#include "core/text/regex.h"

#include <pcre2.h>

#include "core/base/error.h"
#include "core/text/unicode.h"

namespace longlora::text {

namespace {
// The JIT's own stack: grows on demand up to the second number. Expressions that repeat groups need some for
// each round, so a run of a million letters must fit.
constexpr size_t kStackStart = 32 << 10, kStackMost = 64 << 20;

std::string reason_of(int error) {
  unsigned char buffer[256];
  pcre2_get_error_message(error, buffer, sizeof buffer);
  return reinterpret_cast<const char*>(buffer);
}
}  // namespace

struct RegexWorkspace::State {
  pcre2_match_data* match = pcre2_match_data_create(1, nullptr);
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  pcre2_jit_stack* stack = pcre2_jit_stack_create(kStackStart, kStackMost, nullptr);

  State() {
    if (!match || !context || !stack) fail("no memory for regular expressions");
    pcre2_jit_stack_assign(context, nullptr, stack);
    pcre2_set_match_limit(context, UINT32_MAX);
  }
  ~State() {
    pcre2_jit_stack_free(stack);
    pcre2_match_context_free(context);
    pcre2_match_data_free(match);
  }
  State(const State&) = delete;
  State& operator=(const State&) = delete;
};

RegexWorkspace::RegexWorkspace() = default;
RegexWorkspace::~RegexWorkspace() = default;

const RegexWorkspace::State& RegexWorkspace::state() {
  if (!state_) state_ = std::make_unique<State>();
  return *state_;
}

struct Regex::Code {
  pcre2_code* code = nullptr;
  ~Code() { pcre2_code_free(code); }
};

Regex::Regex(std::string_view pattern, const std::string& where) : code_(std::make_unique<Code>()) {
  const std::string translated = translate_regex(pattern, where);
  const std::unique_ptr<pcre2_compile_context, void (*)(pcre2_compile_context*)> context(
      pcre2_compile_context_create(nullptr), pcre2_compile_context_free);
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  int error = 0;
  PCRE2_SIZE at = 0;
  code_->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                              PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &at, context.get());
  if (!code_->code) input_error("{}: the expression '{}' cannot be used: {}", where, pattern, reason_of(error));
  pcre2_jit_compile(code_->code, PCRE2_JIT_COMPLETE);  // where there is no JIT, pcre2_match interprets
}

Regex::~Regex() = default;
Regex::Regex(Regex&&) noexcept = default;
Regex& Regex::operator=(Regex&&) noexcept = default;

void Regex::for_each_match(std::string_view text, RegexWorkspace& workspace,
                           FunctionRef<void(size_t, size_t)> found) const {
  const auto& state = workspace.state();
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  size_t from = 0;
  size_t last_end = std::string_view::npos;
  while (from <= text.size()) {
    const int result =
        pcre2_match(code_->code, subject, text.size(), from, PCRE2_NO_UTF_CHECK, state.match, state.context);
    if (result == PCRE2_ERROR_NOMATCH) return;
    if (result < 0) fail("splitting text into words failed: {}", reason_of(result));
    const PCRE2_SIZE* offsets = pcre2_get_ovector_pointer(state.match);
    const size_t begin = offsets[0], end = offsets[1];
    if (begin == end && end == last_end) {
      from += from < text.size() ? utf8_length(text[from]) : 1;
      continue;
    }
    from = last_end = end;
    found(begin, end);
  }
}

}  // namespace longlora::text

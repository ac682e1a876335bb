// Oniguruma's Ruby syntax -> PCRE2, see regex.h. The tables of differences were found by trying every code
// point in both libraries.
#include <vector>

#include "core/base/error.h"
#include "core/text/regex.h"
#include "core/text/unicode.h"
#include "core/text/unicode_additions.h"

namespace longlora::text {

namespace {

// Insides of character classes. PCRE2's own \s has U+180E, which is no white space since Unicode 6.3; its \w
// lacks marks and other alphabetic characters.
constexpr const char* kSpace =
    R"(\x09-\x0d\x20\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
constexpr const char* kNotSpace =
    R"(\x00-\x08\x0e-\x1f\x21-\x{84}\x{86}-\x{9f}\x{a1}-\x{167f}\x{1681}-\x{1fff}\x{200b}-\x{2027}\x{202a}-\x{202e})"
    R"(\x{2030}-\x{205e}\x{2060}-\x{2fff}\x{3001}-\x{10ffff})";

class Translator {
 public:
  Translator(std::string_view pattern, const std::string& where) : in_(pattern), where_(where) {}

  std::string run() {
    while (at_ < in_.size()) one();
    if (!groups_.empty()) unsupported("an unclosed group");
    return std::move(out_);
  }

 private:
  [[noreturn]] void unsupported(const std::string& what) const {
    input_error("{}: {} in the expression '{}' (byte {}) is not supported", where_, what, in_, at_);
  }
  [[nodiscard]] bool next_is(std::string_view s) const { return in_.substr(at_).starts_with(s); }
  char take() {
    if (at_ >= in_.size()) unsupported("an expression that ends early");
    return in_[at_++];
  }
  void begin_atom() { atom_ = out_.size(), quantifiable_ = true; }

  void one() {
    const char c = in_[at_];
    switch (c) {
      case '\\':
        begin_atom();
        ++at_;
        return escape(false);
      case '[':
        begin_atom();
        return character_class();
      case '(':
        return group();
      case ')':
        if (groups_.empty()) unsupported("an unopened ')'");
        ++at_;
        atom_ = groups_.back(), quantifiable_ = true;
        groups_.pop_back();
        out_ += ')';
        return;
      case '|':
        ++at_;
        out_ += '|', quantifiable_ = false;
        return;
      case '^':
      case '$':  // in Ruby's syntax always at every line
        ++at_;
        out_ += std::string("(?m:") + c + ")", quantifiable_ = false;
        return;
      case '*':
      case '+':
      case '?':
        ++at_;
        return quantifier(std::string(1, c), false);
      case '{':
        return interval();
      case ']':
      case '}':
        begin_atom();
        ++at_;
        out_ += '\\', out_ += c;
        return;
      default:
        begin_atom();
        for (size_t n = utf8_length(c); n > 0; --n) out_ += take();
    }
  }

  void quantifier(const std::string& text, bool is_interval) {
    if (!quantifiable_) unsupported("a quantifier with nothing to repeat");
    quantifiable_ = false;
    out_ += text;
    if (next_is("?")) {
      if (is_interval) unsupported("'{n,m}?'");
      ++at_, out_ += '?';
    } else if (next_is("+")) {
      ++at_;
      if (is_interval) {  // not possessive in Ruby's syntax, but a repetition of the repetition
        out_.insert(atom_, "(?:");
        out_ += ")+";
      } else {
        out_ += '+';
      }
    }
  }

  void interval() {
    size_t i = at_ + 1;
    std::string low, high;
    while (i < in_.size() && in_[i] >= '0' && in_[i] <= '9') low += in_[i++];
    const bool range = i < in_.size() && in_[i] == ',';
    if (range) ++i;
    while (range && i < in_.size() && in_[i] >= '0' && in_[i] <= '9') high += in_[i++];
    if (i >= in_.size() || in_[i] != '}' || (low.empty() && high.empty())) {  // a literal brace
      begin_atom();
      ++at_;
      out_ += "\\{";
      return;
    }
    at_ = i + 1;
    quantifier("{" + (low.empty() ? "0" : low) + (range ? "," : "") + high + "}", true);
  }

  void group() {
    const size_t start = out_.size();
    for (const std::string_view open : {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?i:", "(?-i:"})
      if (next_is(open)) {
        at_ += open.size(), out_ += open;
        groups_.push_back(start), quantifiable_ = false;
        return;
      }
    if (next_is("(?i)") && at_ == 0) {
      at_ += 4, out_ += "(?i)";
      return;
    }
    if (next_is("(?")) unsupported("a group that begins with '" + std::string(in_.substr(at_, 4)) + "'");
    ++at_, out_ += '(';
    groups_.push_back(start), quantifiable_ = false;
  }

  // `\p{Name}` behind the 'p' or 'P', as the inside of a class: the property and what newer Unicode versions
  // added.
  std::string property(bool* negated) {
    if (take() != '{') unsupported("'\\p' without braces");
    std::string name;
    for (char c; (c = take()) != '}';) name += c;
    if (name.starts_with('^')) *negated = !*negated, name.erase(0, 1);
    if (name.empty()) unsupported("'\\p{}'");
    std::string inside;
    // The Latin letters and digits first: PCRE2 keeps these in a bit map, and most text is made of them.
    if (name == "L") inside = "A-Za-z";
    if (name == "N" || name == "Nd") inside = "0-9";
    if (name.size() <= 2)
      for (const UnicodeAddition& range : unicode_additions())
        if (std::string_view(range.category).starts_with(name))
          inside += fmt::format("\\x{{{:x}}}-\\x{{{:x}}}", static_cast<uint32_t>(range.first),
                                static_cast<uint32_t>(range.last));
    return inside + "\\p{" + name + "}";
  }

  void emit_set(const std::string& inside, bool negated, bool in_class) {
    if (in_class && negated) unsupported("a negated set inside a character class");
    out_ += in_class ? inside : (negated ? "[^" : "[") + inside + "]";
  }

  void code_point(const std::string& digits) {
    if (digits.empty() || digits.find_first_not_of("0123456789abcdefABCDEF") != std::string::npos)
      unsupported("a malformed code point");
    out_ += "\\x{" + digits + "}";
  }

  // Behind the backslash.
  void escape(bool in_class) {
    const char c = take();
    // Outside of a class \w has Latin-1's superscripts and fractions, inside it has not.
    std::string word = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc})";
    if (!in_class) word += R"(\xb2\xb3\xb9\xbc-\xbe)";
    bool negated = c == 'P';
    switch (c) {
      case 's':
        return emit_set(kSpace, false, in_class);
      case 'S':
        return in_class ? emit_set(kNotSpace, false, true) : emit_set(kSpace, true, false);
      case 'h':
      case 'H':
        return emit_set("0-9A-Fa-f", c == 'H', in_class);
      case 'd':
      case 'D':
        return named_set("Nd", c == 'D', in_class);
      case 'w':
      case 'W':
        return emit_set(additions_of_word() + word, c == 'W', in_class);
      case 'p':
      case 'P': {
        const std::string inside = property(&negated);
        return emit_set(inside, negated, in_class);
      }
      case 'n':
      case 'r':
      case 't':
      case 'f':
      case 'a':
      case 'e':
        out_ += '\\', out_ += c;
        return;
      case 'v':
        out_ += "\\x0b";
        return;
      case 'A':
      case 'z':
      case 'Z':
        if (in_class) break;
        out_ += '\\', out_ += c, quantifiable_ = false;
        return;
      case 'x': {
        std::string digits;
        if (next_is("{")) {
          ++at_;
          for (char d; (d = take()) != '}';) digits += d;
        } else {
          digits = std::string(in_.substr(at_, 2));
          at_ += digits.size();
          if (digits.empty() || digits[0] > '7') break;  // a single byte of a longer character
        }
        return code_point(digits);
      }
      case 'u': {
        const std::string digits(in_.substr(at_, 4));
        at_ += digits.size();
        return code_point(digits);
      }
      default:
        if (is_word(static_cast<unsigned char>(c)) || static_cast<unsigned char>(c) >= 0x80) break;
        out_ += '\\', out_ += c;
        return;
    }
    unsupported(std::string("'\\") + c + "'");
  }

  void named_set(const char* name, bool negated, bool in_class) {
    const size_t kept = at_;
    const std::string_view whole = in_;
    const std::string braces = std::string("{") + name + "}";
    in_ = braces, at_ = 0;
    const std::string inside = property(&negated);
    in_ = whole, at_ = kept;
    emit_set(inside, negated, in_class);
  }

  static std::string additions_of_word() {
    std::string inside = "0-9A-Z_a-z";
    for (const UnicodeAddition& range : unicode_additions())
      if (is_word(range.first))
        inside += fmt::format("\\x{{{:x}}}-\\x{{{:x}}}", static_cast<uint32_t>(range.first),
                              static_cast<uint32_t>(range.last));
    return inside;
  }

  void character_class() {
    out_ += take();
    if (next_is("^")) out_ += take();
    if (next_is("]")) unsupported("a ']' at the start of a character class");
    for (;;) {
      if (next_is("[")) unsupported("a class inside a character class");
      if (next_is("&&")) unsupported("'&&' in a character class");
      const char c = take();
      if (c == '\\') {
        escape(true);
        continue;
      }
      out_ += c;
      if (c == ']') return;
    }
  }

  std::string_view in_;
  const std::string& where_;
  size_t at_ = 0;
  std::string out_;
  std::vector<size_t> groups_;  // where in out_ each open group begins
  size_t atom_ = 0;             // where in out_ the last atom begins
  bool quantifiable_ = false;
};

}  // namespace

std::string translate_regex(std::string_view pattern, const std::string& where) {
  return Translator(pattern, where).run();
}

}  // namespace longlora::text

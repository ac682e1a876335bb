#include "core/text/normalizer.h"

#include <algorithm>
#include <cstdlib>

#include <utf8proc.h>

#include "core/base/error.h"
#include "core/text/matcher.h"
#include "core/text/unicode.h"

namespace longlora::text {

namespace {

using Step = Normalizer::Step;

bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

// NFC, NFD, NFKC, NFKD.
class UnicodeForm final : public Step {
 public:
  UnicodeForm(bool compose, bool compatibility)
      : options_(static_cast<utf8proc_option_t>(UTF8PROC_STABLE | (compose ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE) |
                                                (compatibility ? UTF8PROC_COMPAT : 0))) {}
  void apply(std::string& text, RegexWorkspace&) const override {
    if (is_ascii(text)) return;
    utf8proc_uint8_t* made = nullptr;
    const auto size = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                                   static_cast<utf8proc_ssize_t>(text.size()), &made, options_);
    if (size < 0) fail("Unicode normalization failed: {}", utf8proc_errmsg(size));
    text.assign(reinterpret_cast<const char*>(made), static_cast<size_t>(size));
    std::free(made);
  }

 private:
  utf8proc_option_t options_;
};

// Rewrites character by character.
class EachCharacter : public Step {
 public:
  void apply(std::string& text, RegexWorkspace&) const final {
    std::string out;
    out.reserve(text.size());
    for (size_t i = 0; i < text.size(); i += utf8_length(text[i])) rewrite(utf8_at(text, i), out);
    text = std::move(out);
  }

 private:
  virtual void rewrite(char32_t c, std::string& out) const = 0;
};

class Lowercase final : public EachCharacter {
  void rewrite(char32_t c, std::string& out) const override {
    if (c == 0x130) {  // the one character whose small form is two
      out += "i\xCC\x87";
      return;
    }
    append_utf8(out, static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))));
  }
};

class StripAccents final : public EachCharacter {
  void rewrite(char32_t c, std::string& out) const override {
    if (!is_mark(c)) append_utf8(out, c);
  }
};

class ByteLevelNormalizer final : public Step {
  void apply(std::string& text, RegexWorkspace&) const override {
    std::string out;
    out.reserve(text.size() * 2);
    for (const char c : text) out += byte_characters()[static_cast<unsigned char>(c)];
    text = std::move(out);
  }
};

class Strip final : public Step {
 public:
  Strip(bool left, bool right) : left_(left), right_(right) {}
  void apply(std::string& text, RegexWorkspace&) const override {
    size_t begin = 0, end = text.size();
    while (left_ && begin < end && is_whitespace(utf8_at(text, begin))) begin += utf8_length(text[begin]);
    while (right_ && end > begin) {
      size_t last = end - 1;
      while ((static_cast<unsigned char>(text[last]) & 0xC0) == 0x80) --last;
      if (!is_whitespace(utf8_at(text, last))) break;
      end = last;
    }
    text = text.substr(begin, end - begin);
  }

 private:
  bool left_, right_;
};

class Prepend final : public Step {
 public:
  explicit Prepend(std::string prefix) : prefix_(std::move(prefix)) {}
  void apply(std::string& text, RegexWorkspace&) const override {
    if (!text.empty()) text.insert(0, prefix_);
  }

 private:
  std::string prefix_;
};

class Replace final : public Step {
 public:
  Replace(Matcher what, std::string by) : what_(std::move(what)), by_(std::move(by)) {}
  void apply(std::string& text, RegexWorkspace& workspace) const override {
    text = what_.replace(text, by_, workspace);
  }

 private:
  Matcher what_;
  std::string by_;
};

}  // namespace

Normalizer::Normalizer(const Json& json, const std::string& where) {
  read(json, where);
}

void Normalizer::read(const Json& json, const std::string& where) {
  if (json.is_null()) return;
  const std::string type = type_of(json, where);
  if (type == "Sequence") {
    allow_keys(json, where, {"type", "normalizers"});
    const auto parts = required<std::vector<Json>>(json, "normalizers", where);
    for (size_t i = 0; i < parts.size(); ++i) read(parts[i], fmt::format("{}.normalizers[{}]", where, i));
  } else if (type == "NFC" || type == "NFD" || type == "NFKC" || type == "NFKD") {
    allow_keys(json, where, {"type"});
    steps_.push_back(std::make_unique<UnicodeForm>(type.back() == 'C', type.size() == 4));
  } else if (type == "Lowercase") {
    allow_keys(json, where, {"type"});
    steps_.push_back(std::make_unique<Lowercase>());
  } else if (type == "StripAccents") {
    allow_keys(json, where, {"type"});
    steps_.push_back(std::make_unique<StripAccents>());
  } else if (type == "ByteLevel") {
    allow_keys(json, where, {"type"});
    steps_.push_back(std::make_unique<ByteLevelNormalizer>());
  } else if (type == "Strip") {
    allow_keys(json, where, {"type", "strip_left", "strip_right"});
    steps_.push_back(
        std::make_unique<Strip>(required<bool>(json, "strip_left", where), required<bool>(json, "strip_right", where)));
  } else if (type == "Prepend") {
    allow_keys(json, where, {"type", "prepend"});
    steps_.push_back(std::make_unique<Prepend>(required<std::string>(json, "prepend", where)));
  } else if (type == "Replace") {
    allow_keys(json, where, {"type", "pattern", "content"});
    steps_.push_back(std::make_unique<Replace>(Matcher(pattern_of(json, where), where),
                                               required<std::string>(json, "content", where)));
  } else {
    unsupported_type(type, where);
  }
}

}  // namespace longlora::text

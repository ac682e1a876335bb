#include "core/text/unicode.h"

#include <cstring>

#include <utf8proc.h>

#include "core/text/unicode_additions.h"

namespace longlora::text {

namespace {

struct Step {
  size_t length;  // of the character, or of the ill-formed part
  bool valid;
  bool truncated;  // ill-formed only because the bytes end
};

// One character, or one maximal ill-formed part, at the start of p[0, n), n > 0 (Unicode 15, table 3-7).
Step next_step(const unsigned char* p, size_t n) {
  const unsigned char lead = p[0];
  if (lead < 0x80) return {1, true, false};
  if (lead < 0xC2 || lead > 0xF4) return {1, false, false};
  const size_t need = lead < 0xE0 ? 1 : lead < 0xF0 ? 2 : 3;
  unsigned char low = 0x80, high = 0xBF;
  if (lead == 0xE0) low = 0xA0;
  if (lead == 0xED) high = 0x9F;
  if (lead == 0xF0) low = 0x90;
  if (lead == 0xF4) high = 0x8F;
  for (size_t i = 1; i <= need; ++i) {
    if (i >= n) return {i, false, true};
    if (p[i] < low || p[i] > high) return {i, false, false};
    low = 0x80, high = 0xBF;
  }
  return {need + 1, true, false};
}

// Length of the ASCII run at the start of p[0, n).
size_t ascii_run(const unsigned char* p, size_t n) {
  size_t i = 0;
  for (; i + 8 <= n; i += 8) {
    uint64_t word;
    std::memcpy(&word, p + i, 8);
    if (word & 0x8080808080808080ULL) break;
  }
  while (i < n && p[i] < 0x80) ++i;
  return i;
}

const unsigned char* raw(std::string_view text) {
  return reinterpret_cast<const unsigned char*>(text.data());
}

// General category, two letters.
std::string_view category(char32_t c) {
  const auto code = static_cast<utf8proc_int32_t>(c);
  if (utf8proc_category(code) != UTF8PROC_CATEGORY_CN) return utf8proc_category_string(code);
  for (const UnicodeAddition& range : unicode_additions())
    if (c >= range.first && c <= range.last) return range.category;
  return "Cn";
}

}  // namespace

char32_t utf8_at(std::string_view text, size_t at) {
  const unsigned char* p = raw(text) + at;
  switch (utf8_length(text[at])) {
    case 1:
      return p[0];
    case 2:
      return (p[0] & 0x1Fu) << 6 | (p[1] & 0x3Fu);
    case 3:
      return (p[0] & 0x0Fu) << 12 | (p[1] & 0x3Fu) << 6 | (p[2] & 0x3Fu);
    default:
      return (p[0] & 0x07u) << 18 | (p[1] & 0x3Fu) << 12 | (p[2] & 0x3Fu) << 6 | (p[3] & 0x3Fu);
  }
}

void append_utf8(std::string& out, char32_t c) {
  utf8proc_uint8_t buffer[4];
  const auto n = utf8proc_encode_char(static_cast<utf8proc_int32_t>(c), buffer);
  out.append(reinterpret_cast<const char*>(buffer), static_cast<size_t>(n));
}

bool is_valid_utf8(std::string_view text) {
  const unsigned char* p = raw(text);
  for (size_t i = 0; (i += ascii_run(p + i, text.size() - i)) < text.size();) {
    const Step step = next_step(p + i, text.size() - i);
    if (!step.valid) return false;
    i += step.length;
  }
  return true;
}

void append_valid_utf8(std::string& out, std::string_view bytes) {
  const unsigned char* p = raw(bytes);
  for (size_t i = 0; i < bytes.size();) {
    const size_t ascii = ascii_run(p + i, bytes.size() - i);
    out.append(bytes.substr(i, ascii));
    if ((i += ascii) == bytes.size()) return;
    const Step step = next_step(p + i, bytes.size() - i);
    out.append(step.valid ? bytes.substr(i, step.length) : kReplacement);
    i += step.length;
  }
}

size_t incomplete_tail(std::string_view bytes) {
  for (size_t back = 1; back <= 3 && back <= bytes.size(); ++back) {
    const unsigned char byte = raw(bytes)[bytes.size() - back];
    if (byte >= 0x80 && byte < 0xC0) continue;  // look further back for the lead
    return next_step(raw(bytes) + bytes.size() - back, back).truncated ? back : 0;
  }
  return 0;
}

bool is_whitespace(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool is_number(char32_t c) {
  return c < 0x80 ? c >= '0' && c <= '9' : category(c)[0] == 'N';
}

bool is_mark(char32_t c) {
  return c >= 0x300 && category(c)[0] == 'M';
}

bool is_punctuation(char32_t c) {
  if (c < 0x80) return c > 0x20 && c < 0x7F && !(c >= '0' && c <= '9') && !((c | 0x20) >= 'a' && (c | 0x20) <= 'z');
  return category(c)[0] == 'P';
}

bool is_word(char32_t c) {
  if (c < 0x80) return c == '_' || (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z');
  const std::string_view kind = category(c);
  if (kind[0] == 'L' || kind[0] == 'M' || kind == "Nd" || kind == "Nl" || kind == "Pc") return true;
  // Other_Alphabetic among the symbols: circled, parenthesized and squared letters; then the two joiners.
  return (c >= 0x24B6 && c <= 0x24E9) || (c >= 0x1F130 && c <= 0x1F149) || (c >= 0x1F150 && c <= 0x1F169) ||
         (c >= 0x1F170 && c <= 0x1F189) || c == 0x200C || c == 0x200D;
}

const std::array<std::string, 256>& byte_characters() {
  static const std::array<std::string, 256> table = [] {
    std::array<std::string, 256> made;
    char32_t next = 0x100;
    for (char32_t byte = 0; byte < 256; ++byte) {
      const bool itself = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
      append_utf8(made[byte], itself ? byte : next++);
    }
    return made;
  }();
  return table;
}

std::optional<uint8_t> byte_of_character(char32_t c) {
  static const std::array<int16_t, 0x144> table = [] {
    std::array<int16_t, 0x144> made;
    made.fill(-1);
    for (size_t byte = 0; byte < 256; ++byte) made[utf8_at(byte_characters()[byte], 0)] = static_cast<int16_t>(byte);
    return made;
  }();
  if (c >= table.size() || table[c] < 0) return std::nullopt;
  return static_cast<uint8_t>(table[c]);
}

std::optional<std::string> bytes_of_token(std::string_view token) {
  std::string bytes;
  for (size_t i = 0; i < token.size(); i += utf8_length(token[i])) {
    const auto byte = byte_of_character(utf8_at(token, i));
    if (!byte) return std::nullopt;
    bytes += static_cast<char>(*byte);
  }
  return bytes;
}

}  // namespace longlora::text

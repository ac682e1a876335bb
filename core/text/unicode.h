// What tokenizers need of Unicode: UTF-8 in and out, the character classes that their rules speak of, and the
// byte <-> character table of byte-level BPE.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace longlora::text {

inline constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

// Bytes of the UTF-8 character that `lead` begins, in valid UTF-8.
[[nodiscard]] constexpr size_t utf8_length(char lead) {
  const auto byte = static_cast<unsigned char>(lead);
  return byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}
// The character at `at` of valid UTF-8.
[[nodiscard]] char32_t utf8_at(std::string_view text, size_t at);
void append_utf8(std::string& out, char32_t c);

[[nodiscard]] bool is_valid_utf8(std::string_view text);
// Appends `bytes` with each maximal ill-formed part replaced by U+FFFD (Unicode 15, §3.9, "U+FFFD
// Substitution of Maximal Subparts"), which is also what Python's errors="replace" does.
void append_valid_utf8(std::string& out, std::string_view bytes);
// How many bytes at the end are the beginning of a character whose rest is missing: 0 to 3.
[[nodiscard]] size_t incomplete_tail(std::string_view bytes);

// Unicode properties (version 16 where assigned after the system's tables).
[[nodiscard]] bool is_whitespace(char32_t c);   // White_Space
[[nodiscard]] bool is_number(char32_t c);       // general category N
[[nodiscard]] bool is_mark(char32_t c);         // general category M
[[nodiscard]] bool is_punctuation(char32_t c);  // general category P, or an ASCII symbol
[[nodiscard]] bool is_word(char32_t c);         // Alphabetic, M, Nd, Pc or a joiner (UTS #18, \w)

// Byte-level BPE writes each byte as one printable character (GPT-2's table: ! to ~, ¡ to ¬ and ® to ÿ stand
// for themselves, the others for U+0100 upwards), so that vocabularies are plain text.
[[nodiscard]] const std::array<std::string, 256>& byte_characters();
[[nodiscard]] std::optional<uint8_t> byte_of_character(char32_t c);
// The bytes that `token` stands for, or nothing when it has a character outside the table.
[[nodiscard]] std::optional<std::string> bytes_of_token(std::string_view token);

}  // namespace longlora::text

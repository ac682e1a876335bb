#include "core/text/sentencepiece_spec.h"

#include <cstdint>
#include <optional>

#include "core/text/function_ref.h"

namespace longlora::text {

namespace {

struct Field {
  uint64_t number = 0;
  uint64_t value = 0;      // of a varint
  std::string_view bytes;  // of a length-delimited field
};

std::optional<uint64_t> take_varint(std::string_view& in) {
  uint64_t value = 0;
  for (int shift = 0; shift < 64 && !in.empty(); shift += 7) {
    const auto byte = static_cast<unsigned char>(in[0]);
    in.remove_prefix(1);
    value |= static_cast<uint64_t>(byte & 0x7F) << shift;
    if (byte < 0x80) return value;
  }
  return std::nullopt;
}

// Walks over the fields of a protobuf message; false when it is malformed.
bool for_each_field(std::string_view in, FunctionRef<void(const Field&)> found) {
  while (!in.empty()) {
    const auto tag = take_varint(in);
    if (!tag) return false;
    Field field{*tag >> 3, 0, {}};
    size_t length = 0;
    switch (*tag & 7) {
      case 0: {
        const auto value = take_varint(in);
        if (!value) return false;
        field.value = *value;
        break;
      }
      case 1:
        length = 8;
        break;
      case 5:
        length = 4;
        break;
      case 2: {
        const auto size = take_varint(in);
        if (!size || *size > in.size()) return false;
        length = *size;
        break;
      }
      default:
        return false;
    }
    if (length > in.size()) return false;
    field.bytes = in.substr(0, length);
    in.remove_prefix(length);
    found(field);
  }
  return true;
}

}  // namespace

SentencePieceSpec sentencepiece_spec(std::string_view bytes) {
  constexpr uint64_t kTrainerSpec = 2, kNormalizerSpec = 3;
  SentencePieceSpec spec;
  bool has_map = false, removes_spaces = true, escapes_spaces = true;  // the message's defaults
  bool parts_sound = true;
  const bool sound = for_each_field(bytes, [&](const Field& part) {
    if (part.number == kTrainerSpec)
      parts_sound &= for_each_field(part.bytes, [&](const Field& field) {
        if (field.number == 3) spec.is_bpe = field.value == 2;
        if (field.number == 24) spec.suffix_spaces = field.value != 0;
        if (field.number == 35) spec.byte_fallback = field.value != 0;
      });
    if (part.number == kNormalizerSpec)
      parts_sound &= for_each_field(part.bytes, [&](const Field& field) {
        if (field.number == 2) has_map = !field.bytes.empty();
        if (field.number == 4) removes_spaces = field.value != 0;
        if (field.number == 5) escapes_spaces = field.value != 0;
      });
  });
  spec.rewrites_text = !sound || !parts_sound || has_map || removes_spaces || !escapes_spaces;
  return spec;
}

}  // namespace longlora::text

// bfloat16 and binary16 to and from float32 in plain integer arithmetic, rounding to nearest even.
#pragma once
#include <bit>
#include <cstdint>

namespace longlora::cuda::host {

inline float bf16_bits_to_float(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

inline uint16_t float_to_bf16_bits(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fff;  // NaN
  return static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

// Exponent and fraction moved into place are the value times 2^-112; what was infinity or NaN becomes so again.
inline float fp16_bits_to_float(uint16_t bits) {
  const uint32_t magnitude = static_cast<uint32_t>(bits & 0x7fffu) << 13;
  uint32_t result = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) * 0x1p112f);
  if (magnitude >= 0x7c00u << 13) result |= 0x7f800000u;
  return std::bit_cast<float>(result | static_cast<uint32_t>(bits & 0x8000u) << 16);
}

inline uint16_t float_to_fp16_bits(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  const uint32_t sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return 0x7fff;                                  // NaN
  if (magnitude >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);  // 65520 and more: infinity
  if (magnitude < 0x38800000u) {                                               // below 2^-14: units of 2^-24
    const float units = std::bit_cast<float>(magnitude) + 0.5f;                // 0.5 has an ulp of 2^-24
    return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(units) - 0x3f000000u));
  }
  return static_cast<uint16_t>(sign | ((magnitude + 0xfffu + (magnitude >> 13 & 1u) - 0x38000000u) >> 13));
}

}  // namespace longlora::cuda::host

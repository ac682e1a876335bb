// Element types inside the CPU kernels: how each is read into and written from the type that sums are kept
// in.
#pragma once
#include "core/ops/cpu/isa.h"
#include "core/ops/cpu/kernels.h"

namespace longlora::LONGLORA_CPU_NAMESPACE {

struct bf16 {
  uint16_t bits;
};

template <class T>
struct Sum {
  using type = float;
};
template <>
struct Sum<double> {
  using type = double;
};
template <class T>
using sum_t = typename Sum<T>::type;

inline double load(const double& x) {
  return x;
}
inline float load(const float& x) {
  return x;
}
inline float load(const bf16& x) {
  return __builtin_bit_cast(float, static_cast<uint32_t>(x.bits) << 16);
}

inline void store(double& to, double x) {
  to = x;
}
inline void store(float& to, float x) {
  to = x;
}
// Round to nearest, ties to even; NaN stays NaN.
inline void store(bf16& to, float x) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, x);
  const uint32_t rounded = (bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16;
  to.bits = static_cast<uint16_t>((bits & 0x7fffffffU) > 0x7f800000U ? (bits >> 16) | 0x40U : rounded);
}

inline double exponential(double x) {
  return __builtin_exp(x);
}
// exp by 2^n * p(r), |r| <= ln 2 / 2, p of degree 6 (Cephes expf): about 1 ulp; between -87.3 and 87.3.
inline float exponential(float x) {
  x = x < -87.3f ? -87.3f : (x > 87.3f ? 87.3f : x);
  const float n = __builtin_floorf(x * 1.44269504f + 0.5f);
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const float scale = __builtin_bit_cast(float, (static_cast<int32_t>(n) + 127) << 23);
  return p * scale;
}

// Calls body.template operator()<T>() for the element type.
template <class Body>
inline void with_element(cpu::Element element, Body&& body) {
  switch (element) {
    case cpu::Element::f64:
      body.template operator()<double>();
      break;
    case cpu::Element::f32:
      body.template operator()<float>();
      break;
    case cpu::Element::bf16:
      body.template operator()<bf16>();
      break;
  }
}

}  // namespace longlora::LONGLORA_CPU_NAMESPACE

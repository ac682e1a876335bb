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

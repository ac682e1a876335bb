#include "core/ops/cpu_kernels.h"

namespace longlora::ops {

const cpu::Kernels& cpu_kernels() {
#if defined(__x86_64__)
  static const cpu::Kernels& chosen = [&]() -> const cpu::Kernels& {
    const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                        __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512bf16");
    if (avx512) return cpu_avx512::kernels();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
    return avx2 ? cpu_avx2::kernels() : cpu_baseline::kernels();
  }();
  return chosen;
#else
  return cpu_baseline::kernels();
#endif
}

std::optional<cpu::Element> cpu_element(const at::Tensor& tensor) {
  if (!tensor.is_cpu()) return std::nullopt;
  switch (tensor.scalar_type()) {
    case at::kDouble:
      return cpu::Element::f64;
    case at::kFloat:
      return cpu::Element::f32;
    case at::kBFloat16:
      return cpu::Element::bf16;
    default:
      return std::nullopt;
  }
}

}  // namespace longlora::ops

#include "core/ops/cpu_kernels.h"

#include <ATen/Version.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>

#include "core/base/isa.h"

namespace longlora::ops {
namespace {

#if defined(__x86_64__)
// What LibTorch's own kernels use: what the processor has, or less under a limit. LibTorch does not tell AMX apart; for that,
// what oneDNN is allowed.
Isa libraries_isa() {
  const std::string capability = at::get_cpu_capability();
  if (capability == "DEFAULT") return Isa::baseline;
  if (capability == "AVX2") return Isa::avx2;
  for (const char* variable : {"ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"}) {
    const char* const value = std::getenv(variable);
    std::string limit = value != nullptr ? value : "DEFAULT";
    std::transform(limit.begin(), limit.end(), limit.begin(), [](unsigned char c) { return std::toupper(c); });
    if (limit != "DEFAULT" && limit != "ALL" && limit.find("AMX") == std::string::npos) return Isa::avx512;
  }
  return Isa::amx;
}
#endif

}  // namespace

const cpu::Kernels& cpu_kernels() {
#if defined(__x86_64__)
  static const cpu::Kernels& chosen = [&]() -> const cpu::Kernels& {
    switch (std::min(processor_isa(), libraries_isa())) {
      case Isa::amx:
        return cpu_amx::kernels();
      case Isa::avx512:
        return cpu_avx512::kernels();
      case Isa::avx2:
        return cpu_avx2::kernels();
      default:
        return cpu_baseline::kernels();
    }
  }();
  return chosen;
#else
  return cpu_baseline::kernels();
#endif
}

std::string describe_cpu_kernels() {
  return fmt::format("{} kernels{}", cpu_kernels().name, isa_is_limited() ? " (instruction set limited)" : "");
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

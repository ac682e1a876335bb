// The CPU kernels of this machine's instruction set, and the loop that spreads their rows over the threads.
#pragma once
#include <ATen/Parallel.h>

#include <algorithm>
#include <optional>
#include <string>

#include "core/ops/cpu/kernels.h"

namespace longlora::ops {

// Chosen once: the largest instruction set that the processor has and LibTorch uses (core/base/isa.h limits both), AMX where oneDNN may.
[[nodiscard]] const cpu::Kernels& cpu_kernels();

// "avx512 kernels", or "avx2 kernels (instruction set limited)".
[[nodiscard]] std::string describe_cpu_kernels();

// The kernels' element type of `tensor`, empty when they do not serve it (another device or dtype).
[[nodiscard]] std::optional<cpu::Element> cpu_element(const at::Tensor& tensor);

// body(begin, end) over `rows` rows on all threads; a thread gets at least about 16k elements' work.
template <class Body>
void over_rows(int64_t rows, int64_t row_elements, Body&& body) {
  at::parallel_for(0, rows, std::max<int64_t>(1, 16384 / std::max<int64_t>(1, row_elements)), body);
}

}  // namespace longlora::ops

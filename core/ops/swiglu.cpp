#include "core/ops/swiglu.h"

#include "core/ops/cpu_kernels.h"
#include "core/ops/cuda_call.h"
#include "cuda/swiglu.h"

namespace longlora::ops {

at::Tensor swiglu_forward(const at::Tensor& gate_up) {
  const int64_t n = gate_up.size(1) / 2;
  if (const auto type = cuda_element(gate_up)) {
    const CudaCall call(gate_up);
    const at::Tensor m = at::empty({gate_up.size(0), n}, gate_up.options());
    cuda::swiglu_forward({.element = *type,
                          .rows = m.size(0),
                          .n = n,
                          .gate_up = gate_up.const_data_ptr(),
                          .gate_up_row = gate_up.stride(0),
                          .m = m.mutable_data_ptr(),
                          .m_row = m.stride(0)},
                         call.stream);
    return m;
  }
  const auto element = cpu_element(gate_up);
  if (!element) return at::silu(gate_up.narrow(1, 0, n)).mul_(gate_up.narrow(1, n, n));
  at::Tensor m = at::empty({gate_up.size(0), n}, gate_up.options());
  const cpu::SwigluForward arguments{gate_up.data_ptr(), m.data_ptr(), n};
  over_rows(m.size(0), n,
            [&](int64_t begin, int64_t end) { cpu_kernels().swiglu_forward(*element, arguments, begin, end); });
  return m;
}

void swiglu_backward_in_place(const at::Tensor& gate_up, const at::Tensor& dm, const at::Tensor& m) {
  const int64_t n = gate_up.size(1) / 2;
  if (const auto type = cuda_element(gate_up)) {
    const CudaCall call(gate_up);
    cuda::swiglu_backward_in_place({.element = *type,
                                    .rows = dm.size(0),
                                    .n = n,
                                    .gate_up = gate_up.mutable_data_ptr(),
                                    .gate_up_row = gate_up.stride(0),
                                    .dm = dm.const_data_ptr(),
                                    .dm_row = dm.stride(0),
                                    .m = write_or_null(m),
                                    .m_row = row_stride(m)},
                                   call.stream);
    return;
  }
  if (const auto element = cpu_element(gate_up)) {
    const cpu::SwigluBackward arguments{gate_up.data_ptr(), dm.data_ptr(), gate_up.data_ptr(),
                                        m.defined() ? m.data_ptr() : nullptr, n};
    over_rows(dm.size(0), n,
              [&](int64_t begin, int64_t end) { cpu_kernels().swiglu_backward(*element, arguments, begin, end); });
    return;
  }
  const at::Tensor g = gate_up.narrow(1, 0, n), u = gate_up.narrow(1, n, n);
  const at::Tensor silu = at::silu(g);
  if (m.defined()) at::mul_out(const_cast<at::Tensor&>(m), silu, u);
  const at::Tensor dg = at::silu_backward(dm * u, g);
  u.copy_(dm * silu);
  g.copy_(dg);
}

}  // namespace longlora::ops

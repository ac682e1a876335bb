#include "core/ops/swiglu.h"

#include "core/ops/cpu_kernels.h"

namespace longlora::ops {

at::Tensor swiglu_forward(const at::Tensor& gate_up) {
  const int64_t n = gate_up.size(1) / 2;
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

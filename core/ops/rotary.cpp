#include "core/ops/rotary.h"

#include "core/ops/cpu_kernels.h"
#include "core/ops/cuda_call.h"
#include "cuda/rotary.h"

namespace longlora::ops {

void rotate_in_place(const at::Tensor& x, int64_t heads, int64_t head_dim, const at::Tensor& positions,
                     const RotaryTable& table, bool inverse) {
  const int64_t half = head_dim / 2;
  if (const auto type = cuda_element(x)) {
    const CudaCall call(x);
    cuda::rotate_in_place({.element = *type,
                           .tokens = x.size(0),
                           .heads = heads,
                           .head_dim = head_dim,
                           .x = x.mutable_data_ptr(),
                           .token = x.stride(0),
                           .head = head_dim,
                           .positions = positions.const_data_ptr<int32_t>(),
                           .cos = table.cos.const_data_ptr<float>(),
                           .sin = table.sin.const_data_ptr<float>(),
                           .inverse = inverse},
                          call.stream);
    return;
  }
  if (const auto element = cpu_element(x)) {
    const cpu::Rope arguments{x.data_ptr(),
                              positions.data_ptr<int32_t>(),
                              table.cos.data_ptr(),
                              table.sin.data_ptr(),
                              x.size(1),
                              heads,
                              head_dim,
                              inverse};
    over_rows(x.size(0), heads * head_dim,
              [&](int64_t begin, int64_t end) { cpu_kernels().rope(*element, arguments, begin, end); });
    return;
  }
  const at::Tensor turned = x.narrow(1, 0, heads * head_dim).view({x.size(0), heads, 2, half});
  const at::Tensor cos = table.cos.index_select(0, positions).unsqueeze(1);  // [T, 1, D/2]
  const at::Tensor sin = table.sin.index_select(0, positions).unsqueeze(1) * (inverse ? -1 : 1);
  const at::Tensor lo = turned.select(2, 0).to(cos.scalar_type()), hi = turned.select(2, 1).to(cos.scalar_type());
  turned.select(2, 0).copy_(lo * cos - hi * sin);
  turned.select(2, 1).copy_(hi * cos + lo * sin);
}

}  // namespace longlora::ops

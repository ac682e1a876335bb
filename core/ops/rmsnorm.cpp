#include "core/ops/rmsnorm.h"

#include "core/ops/cpu_kernels.h"
#include "core/ops/cuda_call.h"
#include "core/ops/sum_type.h"
#include "cuda/rmsnorm.h"

namespace longlora::ops {
namespace {

void* data_or_null(const at::Tensor& t) {
  return t.defined() ? t.data_ptr() : nullptr;
}

}  // namespace

RmsNormed rmsnorm_forward(const at::Tensor& x, const at::Tensor& w, double eps) {
  if (const auto type = cuda_element(x)) {
    const CudaCall call(x);
    RmsNormed result{at::empty(x.sizes(), x.options()), at::empty({x.size(0)}, x.options().dtype(at::kFloat))};
    cuda::rmsnorm_forward({.element = *type,
                           .rows = x.size(0),
                           .d = x.size(1),
                           .eps = static_cast<float>(eps),
                           .x = const_cast<void*>(x.const_data_ptr()),  // written only where there is a residual
                           .x_row = x.stride(0),
                           .w = w.const_data_ptr(),
                           .y = result.y.mutable_data_ptr(),
                           .y_row = result.y.stride(0),
                           .rstd = result.rstd.mutable_data_ptr<float>()},
                          call.stream);
    return result;
  }
  const auto element = cpu_element(x);
  if (!element) {
    const at::Tensor wide = x.to(sum_type(x));
    const at::Tensor rstd = wide.square().mean(-1).add_(eps).rsqrt_();
    return {(wide * rstd.unsqueeze(-1)).to(x.scalar_type()).mul_(w), rstd};
  }
  RmsNormed result{at::empty_like(x), at::empty({x.size(0)}, x.options().dtype(sum_type(x)))};
  const cpu::RmsNormForward arguments{x.data_ptr(),           w.data_ptr(), result.y.data_ptr(),
                                      result.rstd.data_ptr(), x.size(1),    eps};
  over_rows(x.size(0), x.size(1),
            [&](int64_t begin, int64_t end) { cpu_kernels().rmsnorm_forward(*element, arguments, begin, end); });
  return result;
}

at::Tensor rmsnorm_backward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& w, const at::Tensor& rstd,
                            const at::Tensor& residual, const at::Tensor& dw) {
  if (const auto type = cuda_element(x)) {
    const CudaCall call(x);
    const at::Tensor dx = at::empty(x.sizes(), x.options());
    const at::Tensor work =
        dw.defined() ? at::empty({cuda::rmsnorm_blocks(x.size(0)), x.size(1)}, dw.options()) : at::Tensor();
    cuda::rmsnorm_backward({.element = *type,
                            .rows = x.size(0),
                            .d = x.size(1),
                            .x = x.const_data_ptr(),
                            .x_row = x.stride(0),
                            .w = w.const_data_ptr(),
                            .rstd = rstd.const_data_ptr<float>(),
                            .dy = dy.const_data_ptr(),
                            .dy_row = dy.stride(0),
                            .residual = read_or_null(residual),
                            .residual_row = row_stride(residual),
                            .dx = dx.mutable_data_ptr(),
                            .dx_row = dx.stride(0),
                            .dw = dw.defined() ? dw.mutable_data_ptr<float>() : nullptr,
                            .work = work.defined() ? work.mutable_data_ptr<float>() : nullptr},
                           call.stream);
    return dx;
  }
  const auto element = cpu_element(x);
  if (!element) {
    const at::ScalarType wide = sum_type(x);
    const at::Tensor normed = x.to(wide) * rstd.unsqueeze(-1);
    const at::Tensor g = dy.to(wide);
    if (dw.defined()) dw.add_((g * normed).sum(0));
    const at::Tensor gw = g * w.to(wide);
    at::Tensor dx = (gw - normed * (gw * normed).mean(-1, true)).mul_(rstd.unsqueeze(-1));
    if (residual.defined()) dx.add_(residual);
    return dx.to(x.scalar_type());
  }
  at::Tensor dx = at::empty_like(x);
  const int64_t rows = x.size(0), d = x.size(1);
  // A fixed number of blocks, each with its own sum of dw: the same additions whatever the number of threads.
  const int64_t blocks = std::min<int64_t>(rows, 64);
  const at::Tensor partial = dw.defined() ? at::zeros({blocks, d}, dw.options()) : at::Tensor();
  at::parallel_for(0, blocks, 1, [&](int64_t first, int64_t last) {
    for (int64_t b = first; b < last; ++b) {
      const cpu::RmsNormBackward arguments{x.data_ptr(),
                                           w.data_ptr(),
                                           rstd.data_ptr(),
                                           dy.data_ptr(),
                                           data_or_null(residual),
                                           dx.data_ptr(),
                                           partial.defined() ? partial[b].data_ptr() : nullptr,
                                           d};
      cpu_kernels().rmsnorm_backward(*element, arguments, rows * b / blocks, rows * (b + 1) / blocks);
    }
  });
  if (dw.defined()) dw.add_(partial.sum(0));
  return dx;
}

}  // namespace longlora::ops

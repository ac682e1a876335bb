#include "core/ops/embedding.h"

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>

#include "core/ops/cuda_call.h"
#include "cuda/embedding.h"

namespace longlora::ops {

at::Tensor embedding_forward(const at::Tensor& table, const at::Tensor& tokens) {
  return table.index_select(0, tokens.to(table.device()));
}

void embedding_backward(const at::Tensor& dx, const at::Tensor& tokens, const at::Tensor& dtable) {
  if (const auto type = cuda_element(dx)) {
    const CudaCall call(dx);
    const at::Tensor here = tokens.cpu();  // sorted on the host, so that one block has all rows of a token
    const auto [order, runs] = cuda::token_runs({here.const_data_ptr<int32_t>(), static_cast<size_t>(here.numel())});
    const at::Tensor order_there = upload<int64_t>(order, dx.device()),
                     runs_there = upload<cuda::TokenRun>(runs, dx.device());
    cuda::embedding_backward({.element = *type,
                              .d = dx.size(1),
                              .dx = dx.const_data_ptr(),
                              .dx_row = dx.stride(0),
                              .order = uploaded<int64_t>(order_there),
                              .runs = uploaded<cuda::TokenRun>(runs_there),
                              .run_count = static_cast<int64_t>(runs.size()),
                              .dtable = dtable.mutable_data_ptr<float>(),
                              .dtable_row = dtable.stride(0)},
                             call.stream);
    return;
  }
  if (!dx.is_cpu()) {
    dtable.index_add_(0, tokens.to(dx.device()), dx.to(dtable.scalar_type()));
    return;
  }
  const int64_t rows = dx.size(0), d = dx.size(1);
  const int32_t* token = tokens.data_ptr<int32_t>();
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kBFloat16, at::kHalf, dx.scalar_type(), "embedding_backward", [&] {
    using sum_t = std::conditional_t<std::is_same_v<scalar_t, double>, double, float>;
    const scalar_t* from = dx.data_ptr<scalar_t>();
    sum_t* to = dtable.data_ptr<sum_t>();
    // Threads share the columns, not the tokens: two tokens may be the same.
    at::parallel_for(0, d, 32, [&](int64_t begin, int64_t end) {
      for (int64_t t = 0; t < rows; ++t) {
        for (int64_t i = begin; i < end; ++i) to[token[t] * d + i] += static_cast<sum_t>(from[t * d + i]);
      }
    });
  });
}

}  // namespace longlora::ops

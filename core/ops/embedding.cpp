#include "core/ops/embedding.h"

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>

namespace longlora::ops {

at::Tensor embedding_forward(const at::Tensor& table, const at::Tensor& tokens) {
  return table.index_select(0, tokens.to(table.device()));
}

void embedding_backward(const at::Tensor& dx, const at::Tensor& tokens, const at::Tensor& dtable) {
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

// Which product backend is fastest on this machine for a dtype, and how fast: by what the processor has and a measurement of
// a tenth of a second. Rank 0 of a run makes the choice for all ranks (core/model/compute.h).
#pragma once
#include "core/ops/product.h"

namespace longlora::ops {

struct ProductChoice {
  ProductBackend backend;
  double flops;  // a second; 0 where it was not measured (a GPU)
};

// Measures both backends where both serve the dtype. LibTorch's slow loops would take seconds on a product of a model's size:
// where a small one shows them, they are not tried further.
[[nodiscard]] ProductChoice choose_product(at::ScalarType type, const at::Device& device);

// FLOP/s of x W^T and dy W by one backend: on a CPU of 512 rows with a matrix of 1024 x 1024, on a GPU of 8192 rows, rows and
// columns.
[[nodiscard]] double product_rate(const at::Device& device, at::ScalarType type, ProductBackend backend);

}  // namespace longlora::ops

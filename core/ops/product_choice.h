// Which product backend is fastest on this machine for a dtype, and how fast: by what the processor has and a measurement of
// a tenth of a second. Rank 0 of a run makes the choice for all ranks (core/model/compute.h).
#pragma once
#include "core/ops/product.h"

namespace longlora::ops {

struct ProductChoice {
  ProductBackend backend;
  double flops;  // a second, x W^T and dy W of 512 rows and matrices of 1024 x 1024; 0 where it was not measured (a GPU)
};

// Measures both backends where both serve the dtype. A backend that turns out ten times slower on a small product is not
// tried on a larger one: LibTorch's slow loops would take seconds.
[[nodiscard]] ProductChoice choose_product(at::ScalarType type, const at::Device& device);

// FLOP/s of one backend, as in ProductChoice.
[[nodiscard]] double product_rate(at::ScalarType type, ProductBackend backend);

}  // namespace longlora::ops

// The matrix product of the program: linear layers, LoRA, the head, merging and extraction all come here.
//
//   out = sum_i a_i b_i + bias     a_i [m, k_i], b_i [k_i, n], bias [n]
//
// x W^T, dy W and dy^T x are the same operation on transposed views. GPUs, float32 and float64 take LibTorch's product. So
// does a 16-bit type on a processor that multiplies it (AVX-512 BF16, AMX). On other processors LibTorch falls back to slow
// loops (docs/decisions.md has figures). There, tiles of the operands are converted to float32, multiplied and summed in float32, and each element of the result is rounded once. No matrix is ever there as a
// whole in float32.
#pragma once
#include <ATen/ATen.h>

#include <initializer_list>
#include <optional>
#include <string>

namespace longlora::ops {

// Rows and columns of a float32 tile of the result, and how much of the sum is taken at once. In a large product an element is
// converted once for so many multiplications with it, which is a few percent of their time. Three tiles are 12 MiB.
constexpr int64_t kProductTile = 1024;

enum class ProductBackend {
  native,        // LibTorch's product of the dtype itself
  float32_tiles  // 16-bit operands, converted to float32 tile by tile
};

[[nodiscard]] const char* to_string(ProductBackend backend);
// For messages: "LibTorch's products", "products in float32 tiles".
[[nodiscard]] const char* in_words(ProductBackend backend);
// Empty for an unknown name.
[[nodiscard]] std::optional<ProductBackend> parse_product(const std::string& name);

// What is certain to be right on this device, by what the processor has, without a measurement.
[[nodiscard]] ProductBackend default_product(at::ScalarType type, const at::Device& device);

// Two matrices of one dtype; any strides of which one is 1.
struct Factors {
  const at::Tensor& a;  // [m, k]
  const at::Tensor& b;  // [k, n]
};

// `out` [m, n]: of the factors' dtype. `bias`: undefined for none.
void product_into(const at::Tensor& out, std::initializer_list<Factors> factors, ProductBackend backend,
                  const at::Tensor& bias = {});

// The product as a new tensor of the factors' dtype.
[[nodiscard]] at::Tensor product(const at::Tensor& a, const at::Tensor& b, ProductBackend backend);

// Adds scale * a b to `sum`, a float32 gradient (float64 for float64 factors).
void product_add(const at::Tensor& sum, const at::Tensor& a, const at::Tensor& b, ProductBackend backend,
                 double scale = 1);

}  // namespace longlora::ops

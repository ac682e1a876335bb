// Tensors filled from a seed: the same numbers whatever was drawn before.
#pragma once
#include <ATen/ATen.h>

#include <cstdint>
#include <string_view>

namespace longlora::model {

void fill_uniform(const at::Tensor& tensor, double bound, uint64_t seed);     // in [-bound, bound)
void fill_normal(const at::Tensor& tensor, double deviation, uint64_t seed);  // mean 0

// A number for a name, to derive seeds from.
[[nodiscard]] uint64_t name_hash(std::string_view name);

}  // namespace longlora::model

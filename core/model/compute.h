// What a model is computed in on this machine: the dtype and how its products are multiplied. "auto" is what this machine
// computes fastest within its memory; "stored" is the dtype of the weights on disk.
#pragma once
#include <ATen/ATen.h>

#include <functional>
#include <string>

#include "core/model/tensors.h"
#include "core/ops/product_choice.h"

namespace longlora::model {

struct Compute {
  at::ScalarType dtype;
  ops::ProductChoice product;
};

// `asked`: auto, stored or a dtype's name. `stored`: the dtype that the model's config.json names. `fits`: whether the model
// can be held in a dtype (asked for float32 only, which takes twice the memory). On a CPU auto is bfloat16 where its products
// are clearly faster than float32's, else float32 where it fits, else bfloat16. On a GPU auto is bfloat16.
[[nodiscard]] Compute choose_compute(const std::string& asked, const std::string& stored, const at::Device& device,
                                     const std::function<bool(at::ScalarType)>& fits);

// bfloat16 where its products are clearly faster, else float32.
[[nodiscard]] at::ScalarType faster_dtype(const ops::ProductChoice& bfloat16, const ops::ProductChoice& float32);

// The dtype that "stored" stands for; float64 is computed in float32.
[[nodiscard]] at::ScalarType stored_dtype(const std::string& name);

// "bfloat16, products in float32 tiles (58 GFLOP/s measured)"
[[nodiscard]] std::string describe(const Compute& compute);

// One line for another rank or a checkpoint, and back. Exit 3 for a text that is none.
[[nodiscard]] std::string to_text(const Compute& compute);
[[nodiscard]] Compute compute_of_text(const std::string& text);

}  // namespace longlora::model

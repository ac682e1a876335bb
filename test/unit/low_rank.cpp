// Adding low-rank changes in bfloat16 against LibTorch's own conversions.
#include "core/adapt/low_rank.h"

#include <ATen/ATen.h>

#include <catch2/catch.hpp>

using namespace longlora;

namespace {

io::TensorView view_of(const at::Tensor& tensor) {
  return {io::DType::f32, tensor.sizes().vec(),
          std::span(static_cast<const std::byte*>(tensor.const_data_ptr()), static_cast<size_t>(tensor.nbytes()))};
}

}  // namespace

TEST_CASE("every bfloat16 stays as it is under a change of nothing", "[low_rank]") {
  const at::Tensor a = at::zeros({1, 256}), b = at::ones({256, 1});
  const io::Adapter::LowRank lora{view_of(a), view_of(b), 1, 1, false, {}};
  const adapt::WeightedLowRank part{&lora};
  const at::Tensor all = at::arange(65536, at::kInt).to(at::kShort).view(at::kBFloat16).view({256, 256});
  at::Tensor out = at::empty_like(all);
  adapt::add_low_rank(all, {&part, 1}, 0, out);
  const at::Tensor negative_zero = all.view(at::kShort).eq(-32768);  // -0 + 0 is 0
  CHECK((out.view(at::kShort).eq(all.view(at::kShort)) | all.isnan() | negative_zero).all().item<bool>());
  CHECK(out.isnan().eq(all.isnan()).all().item<bool>());
}

TEST_CASE("a sum is rounded to the nearest bfloat16, halfway cases to the even one", "[low_rank]") {
  at::manual_seed(5);
  // Changes of single bits, so that many sums lie exactly between two values; 300 columns are no multiple of a block.
  const at::Tensor w = (at::randint(-64, 64, {200, 300}).to(at::kFloat) / 8).to(at::kBFloat16);
  const at::Tensor a = at::pow(2, at::randint(-14, 3, {1, 300}).to(at::kFloat)),
                   b = at::randint(-3, 4, {200, 1}).to(at::kFloat);
  const io::Adapter::LowRank lora{view_of(a), view_of(b), 1, 0.5, false, {}};
  const adapt::WeightedLowRank part{&lora};
  const at::Tensor expected =
      (w.to(at::kDouble) + 0.5 * at::mm(b.to(at::kDouble), a.to(at::kDouble))).to(at::kFloat).to(at::kBFloat16);
  at::Tensor out = at::empty_like(w);
  adapt::add_low_rank(w, {&part, 1}, 0, out);
  CHECK(out.equal(expected));
}

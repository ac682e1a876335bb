// The matrix product (core/ops/product.h): both backends against float64, over the shapes and layouts of a step.
#include "core/ops/product.h"

#include <catch2/catch.hpp>

#include <array>
#include <random>

#include "core/ops/cpu_kernels.h"
#include "core/ops/product_choice.h"

namespace longlora::ops {
namespace {

constexpr ProductBackend kBackends[] = {ProductBackend::native, ProductBackend::float32_tiles};

// Rows, depth, columns: single rows and columns, below a tile, at its edges, several of them with a rest.
constexpr std::array<int64_t, 3> kShapes[] = {{1, 7, 5},     {2, 1, 3},      {3, 64, 1},      {33, 70, 24},
                                              {1024, 8, 40}, {1030, 70, 24}, {2050, 1030, 8}, {40, 2100, 1030}};

// As a step holds them: a matrix of its own, a transposed one, and some columns of a wider one.
enum class Layout { plain, transposed, part };

at::Tensor matrix(int64_t rows, int64_t columns, Layout layout, at::ScalarType type) {
  switch (layout) {
    case Layout::plain:
      return at::randn({rows, columns}).to(type);
    case Layout::transposed:
      return at::randn({columns, rows}).to(type).t();
    case Layout::part:
      return at::randn({rows, columns + 6}).to(type).narrow(1, 5, columns);
  }
  return {};
}

at::Tensor exact(const at::Tensor& a, const at::Tensor& b) {
  return at::mm(a.to(at::kDouble), b.to(at::kDouble));
}

double distance(const at::Tensor& a, const at::Tensor& b) {
  return (a.to(at::kDouble) - b.to(at::kDouble)).norm().item<double>();
}

template <class Check>
void over_all(Check&& check) {
  const uint64_t seed = std::random_device()();
  INFO("seed " << seed);
  at::manual_seed(seed);
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16, at::kHalf}) {
    for (const auto& [m, k, n] : kShapes) {
      for (const Layout left : {Layout::plain, Layout::transposed, Layout::part}) {
        for (const Layout right : {Layout::plain, Layout::transposed, Layout::part}) {
          const at::Tensor a = matrix(m, k, left, type), b = matrix(k, n, right, type);
          for (const ProductBackend backend : kBackends) {
            INFO(c10::toString(type) << " " << m << " x " << k << " x " << n << ", layouts " << int(left) << " "
                                     << int(right) << ", " << to_string(backend));
            check(a, b, backend);
          }
        }
      }
    }
  }
}

// The error of the exact product, rounded to the type once; and what sums of float32 may add to it.
double allowed(const at::Tensor& correct, at::ScalarType type, double factor) {
  const double summing = 1e-5 * correct.norm().item<double>();
  return factor * distance(correct.to(type), correct) + summing;
}

TEST_CASE("a product agrees with float64 within one rounding, whatever the backend and the layout", "[product]") {
  over_all([](const at::Tensor& a, const at::Tensor& b, ProductBackend backend) {
    const at::Tensor correct = exact(a, b), ours = product(a, b, backend);
    CHECK(ours.scalar_type() == a.scalar_type());
    const double factor = backend == ProductBackend::float32_tiles ? 1.05 : 2;
    CHECK(distance(ours, correct) <= allowed(correct, a.scalar_type(), factor));
  });
}

TEST_CASE("a product that is added to a float32 gradient keeps what is there", "[product]") {
  over_all([](const at::Tensor& a, const at::Tensor& b, ProductBackend backend) {
    // LibTorch's product of 16-bit types is rounded before it is added; that of tiles is not.
    const bool rounded = backend == ProductBackend::native;
    for (const double scale : {1.0, 0.5}) {
      INFO("scale " << scale);
      const at::Tensor wider = at::randn({a.size(0), b.size(1) + 3}), sum = wider.narrow(1, 2, b.size(1));
      const at::Tensor before = sum.clone(), change = scale * exact(a, b), correct = before.to(at::kDouble) + change;
      product_add(sum, a, b, backend, scale);
      CHECK(distance(sum, correct) <=
            (rounded ? allowed(change, a.scalar_type(), 2) : 0) + 1e-5 * correct.norm().item<double>());
    }
  });
}

TEST_CASE("a product is added to a matrix of a head's size in blocks, each once", "[product]") {
  at::manual_seed(3);
  const at::Tensor a = at::randn({3, 4300}).to(at::kBFloat16).t(), b = at::randn({3, 1030}).to(at::kBFloat16);
  const at::Tensor sum = at::ones({4300, 1030}), correct = 1 + exact(a, b);
  product_add(sum, a, b, ProductBackend::native);
  CHECK(distance(sum, correct) <= allowed(correct, at::kBFloat16, 2));
}

TEST_CASE("several products and a bias are summed before the tiles' one rounding", "[product]") {
  over_all([](const at::Tensor& a, const at::Tensor& b, ProductBackend backend) {
    const at::Tensor bias = at::randn({b.size(1)}).to(a.scalar_type());
    const at::Tensor c = at::randn({a.size(0), 5}).to(a.scalar_type()),
                     d = at::randn({5, b.size(1)}).to(a.scalar_type());
    const at::Tensor out = at::empty({a.size(0), b.size(1)}, a.options());
    product_into(out, {{a, b}, {c, d}}, backend, bias);
    const at::Tensor first = exact(a, b) + bias.to(at::kDouble), correct = first + exact(c, d);
    const bool once = backend == ProductBackend::float32_tiles && a.size(0) > 1;  // LibTorch rounds after each of them
    const double before = once ? 0 : 2 * allowed(first, a.scalar_type(), 2);
    CHECK(distance(out, correct) <= before + allowed(correct, a.scalar_type(), once ? 1.05 : 2));
  });
}

TEST_CASE("a processor without bfloat16 units does not use LibTorch's slow bfloat16 product", "[product]") {
  CHECK(default_product(at::kFloat, at::kCPU) == ProductBackend::native);
  CHECK(default_product(at::kBFloat16, at::kCUDA) == ProductBackend::native);
  CHECK(default_product(at::kHalf, at::kCPU) == ProductBackend::float32_tiles);
  const ProductChoice choice = choose_product(at::kBFloat16, at::kCPU);
  if (!cpu_kernels().bfloat16_units) {
    CHECK(default_product(at::kBFloat16, at::kCPU) == ProductBackend::float32_tiles);
    CHECK(choice.backend == ProductBackend::float32_tiles);
  }
  CHECK(product(at::ones({4, 0}), at::ones({0, 3}), ProductBackend::native).equal(at::zeros({4, 3})));
  const at::Tensor none = at::ones({4, 0}).to(at::kBFloat16);
  CHECK(product(none, none.t(), ProductBackend::float32_tiles).to(at::kFloat).equal(at::zeros({4, 4})));
  CHECK(choice.flops > 0);
  CHECK(parse_product(to_string(choice.backend)) == choice.backend);
  CHECK_FALSE(parse_product("fast").has_value());
}

}  // namespace
}  // namespace longlora::ops

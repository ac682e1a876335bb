// Casts on the host, every pair of types, against the rounding of single numbers.
#include "cuda/cast.h"

#include "test/kernels/elements.h"

using namespace longlora::cuda;
using namespace longlora::cuda::test;

namespace {

template <class From, class To>
void check(const Matrix& x, int64_t shift) {
  INFO(x.columns << " elements, shift " << shift);
  Cells<From> from(x, 0, shift);
  Cells<To> to(1, x.columns, 0, shift);
  cast(Numbers<From>::kElement, from.data(), Numbers<To>::kElement, to.data(), x.columns, nullptr);
  Matrix expected = x;
  for (double& v : expected.data) v = nearest<To>(v);
  CHECK(off(to.values().data, expected.data) == 0);
}

template <class From>
void check_from() {
  uint64_t seed = 1;
  for (const int64_t n : {1, 8, 15, 16, 1000, 2049, 4111}) {
    for (const int64_t shift : {0, 1, 8}) {
      INFO("seed " << seed);
      Matrix x = random_matrix<From>(1, n, seed++, 100);
      const std::vector<double> special = {0,        -0.0,     INFINITY, -INFINITY, NAN,       65504,         65519,
                                           65520,    -1e38,    0x1p-14,  0x1p-24,   0x1.8p-25, 0x1p-25,       0x1p-133,
                                           0x1p-149, 0x1.01p0, 0x1.03p0, 0x1.002p0, 0x1.006p0, 0x1.fffffep127};
      for (size_t i = 0; i < special.size() && i < x.data.size(); ++i) x.data[i] = nearest<From>(special[i]);
      check<From, float>(x, shift);
      check<From, bf16>(x, shift);
      check<From, fp16>(x, shift);
    }
  }
}

}  // namespace

TEMPLATE_TEST_CASE("a cast rounds every number to the nearest", "[cast]", float, bf16, fp16) {
  check_from<TestType>();
}

TEST_CASE("a cast of nothing does nothing", "[cast]") {
  cast(Element::float32, nullptr, Element::bfloat16, nullptr, 0, nullptr);
}

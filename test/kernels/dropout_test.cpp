// The dropout kernel on the host draws the mask that core/ops/dropout.h draws, bit for bit.
#include "cuda/dropout.h"

#include "test/kernels/elements.h"

using namespace longlora::cuda;
using namespace longlora::cuda::test;

namespace {

template <class T>
Matrix by_kernel(const Matrix& x, double p, uint64_t seed, int64_t first_token, int64_t room = 0, int64_t shift = 0) {
  Cells<T> from(x, room, shift), to(x.rows, x.columns, room, shift);
  dropout({.element = Numbers<T>::kElement,
           .rows = x.rows,
           .d = x.columns,
           .x = from.data(),
           .x_row = from.stride(),
           .y = to.data(),
           .y_row = to.stride(),
           .p = p,
           .seed = seed,
           .first_token = first_token},
          nullptr);
  return to.values();
}

uint32_t drawn(uint64_t seed, int64_t token, int64_t column) {
  auto h = static_cast<uint32_t>(longlora::derive_seed(seed, {static_cast<uint64_t>(token)})) ^
           static_cast<uint32_t>(column) * 0x9e3779b9U;
  h = (h ^ h >> 16) * 0x85ebca6bU;
  h = (h ^ h >> 13) * 0xc2b2ae35U;
  return h ^ h >> 16;
}

}  // namespace

TEMPLATE_TEST_CASE("dropout keeps and scales by seed, token and column alone", "[dropout]", float, bf16, fp16) {
  struct Case {
    int64_t rows, d, room, shift;
    double p;
    uint64_t seed;
    int64_t first;
  };
  for (const Case& c : std::vector<Case>{{1, 1, 0, 0, 0.5, 1, 0},
                                         {3, 64, 0, 0, 0.1, 2, 5},
                                         {3, 64, 8, 8, 0.9, 3, int64_t{1} << 40},
                                         {5, 101, 1, 3, 0.25, ~uint64_t{0}, 7},
                                         {2, 2056, 0, 0, 0.05, 4, 9},
                                         {3, 64, 0, 0, 0, 4, 9},
                                         {3, 64, 0, 0, 0.5, 0, 9}}) {
    INFO(c.rows << " rows of " << c.d << ", p " << c.p << ", seed " << c.seed);
    const Matrix x = random_matrix<TestType>(c.rows, c.d, 3);
    Matrix expected = x;
    const auto scale = static_cast<float>(1 / (1 - c.p));
    for (int64_t t = 0; t < c.rows && c.seed != 0; ++t) {
      for (int64_t i = 0; i < c.d; ++i) {
        const float scaled = static_cast<float>(x[t][i]) * scale;
        expected[t][i] =
            drawn(c.seed, c.first + t, i) >= static_cast<uint32_t>(c.p * 0x1p32) ? nearest<TestType>(scaled) : 0;
      }
    }
    CHECK(by_kernel<TestType>(x, c.p, c.seed, c.first, c.room, c.shift).data == expected.data);
  }
}

TEST_CASE("dropout keeps the number that is drawn as the limit itself", "[dropout]") {
  Matrix one(1, 1);
  one[0][0] = 1;
  const double p = drawn(5, 6, 0) * 0x1p-32;
  CHECK(by_kernel<float>(one, p, 5, 6)[0][0] != 0);
  CHECK(by_kernel<float>(one, p + 0x1p-32, 5, 6)[0][0] == 0);
}

// The same mask is in test/unit/dropout.cpp.
TEST_CASE("dropout draws the mask that the CPU draws", "[dropout]") {
  Matrix ones(3, 40);
  std::fill(ones.data.begin(), ones.data.end(), 1);
  const Matrix y = by_kernel<bf16>(ones, 0.5, 42, 1000);
  std::string mask;
  for (const double v : y.data) mask += v == 0 ? '.' : 'x';
  CHECK(mask ==
        "xx..xx..xxx.x.xxxx.x.xxx..xxx.x..xx.xx.."
        "..x..x.xx..x...xx.x.x...x.x.xxx..x.....x"
        "x..x..x..x.....xx.....xxxxx.xxx....x...x");
}

TEST_CASE("dropout refuses a probability of one", "[dropout]") {
  CHECK_THROWS_WITH(dropout({.rows = 1, .d = 1, .p = 1}, nullptr), Catch::Contains("a probability of 1"));
}

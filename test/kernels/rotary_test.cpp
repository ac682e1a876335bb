// The rotary kernel on the host against float64.
#include "cuda/rotary.h"

#include "test/kernels/elements.h"

using namespace longlora::cuda;
using namespace longlora::cuda::test;

namespace {

struct Case {
  int64_t tokens, heads, head_dim;
  int64_t others = 0;  // heads after them that stay as they are
  int64_t room = 0, shift = 0;
};

struct Tables {
  Array<float> cos, sin;
  Array<int32_t> positions;
};

Tables tables(const Case& c, uint64_t seed) {
  Tables t;
  longlora::SplitMix random(seed);
  const int64_t half = c.head_dim / 2, rows = 50;
  for (int64_t i = 0; i < rows * half; ++i) {
    const double angle = static_cast<double>(i / half) * std::pow(10000.0, -static_cast<double>(i % half) / half);
    t.cos.push_back(static_cast<float>(std::cos(angle)));
    t.sin.push_back(static_cast<float>(std::sin(angle)));
  }
  for (int64_t i = 0; i < c.tokens; ++i) t.positions.push_back(static_cast<int32_t>(random.below(rows)));
  return t;
}

Matrix by_definition(const Case& c, const Matrix& x, const Tables& t, bool inverse, Round round) {
  Matrix y = x;
  const int64_t half = c.head_dim / 2;
  for (int64_t token = 0; token < c.tokens; ++token) {
    for (int64_t i = 0; i < c.heads * half; ++i) {
      const int64_t low = i / half * c.head_dim + i % half, at = t.positions[token] * half + i % half;
      const double cos = t.cos[at], sin = inverse ? -t.sin[at] : t.sin[at];
      y[token][low] = round(round(x[token][low] * cos) - round(x[token][low + half] * sin));
      y[token][low + half] = round(round(x[token][low + half] * cos) + round(x[token][low] * sin));
    }
  }
  return y;
}

template <class T>
Matrix by_kernel(const Case& c, const Matrix& x, const Tables& t, bool inverse) {
  Cells<T> cells(x, c.room, c.shift);
  rotate_in_place({.element = Numbers<T>::kElement,
                   .tokens = c.tokens,
                   .heads = c.heads,
                   .head_dim = c.head_dim,
                   .x = cells.data(),
                   .token = cells.stride(),
                   .head = c.head_dim,
                   .positions = t.positions.data(),
                   .cos = t.cos.data(),
                   .sin = t.sin.data(),
                   .inverse = inverse},
                  nullptr);
  return cells.values();
}

}  // namespace

TEMPLATE_TEST_CASE("rotary turns every head by its token's position, and back", "[rotary]", float, bf16, fp16) {
  uint64_t seed = 1;
  for (const Case& c : std::vector<Case>{{1, 1, 2},
                                         {1, 3, 64, 1},
                                         {5, 10, 128, 2},
                                         {3, 70, 64, 5, 8, 8},
                                         {3, 7, 128, 1, 3, 1},
                                         {4, 5, 80},
                                         {4, 2, 6, 1},
                                         {2, 2, 300},
                                         {0, 4, 64}}) {
    INFO("seed " << seed << ": " << c.tokens << " tokens, " << c.heads << " heads of " << c.head_dim << ", room "
                 << c.room);
    const Matrix x = random_matrix<TestType>(c.tokens, (c.heads + c.others) * c.head_dim, seed);
    const Tables t = tables(c, seed);
    for (const bool inverse : {false, true}) {
      const Matrix ours = by_kernel<TestType>(c, x, t, inverse);
      compare<TestType>(inverse ? "turned back" : "turned", inverse ? 3 : 2, ours.data,
                        by_definition(c, x, t, inverse, nearest<TestType>).data,
                        by_definition(c, x, t, inverse, exactly).data);
      for (int64_t token = 0; token < c.tokens; ++token) {
        for (int64_t i = c.heads * c.head_dim; i < x.columns; ++i) REQUIRE(ours[token][i] == x[token][i]);
      }
    }
    ++seed;
  }
}

TEMPLATE_TEST_CASE("rotary holds for large and tiny numbers", "[rotary]", float, bf16, fp16) {
  const Case c{3, 2, 64};
  const Tables t = tables(c, 1);
  for (const double size : {Numbers<TestType>::kLargest / 4, 40 * Numbers<TestType>::kTiny}) {
    Matrix x = random_matrix<TestType>(c.tokens, c.heads * c.head_dim, 7);
    for (double& v : x.data) v = nearest<TestType>(v / 3 * size);
    compare<TestType>("turned", 2, by_kernel<TestType>(c, x, t, false).data,
                      by_definition(c, x, t, false, nearest<TestType>).data,
                      by_definition(c, x, t, false, exactly).data);
  }
}

TEST_CASE("rotary refuses an odd head size", "[rotary]") {
  CHECK_THROWS_WITH(rotate_in_place({.tokens = 1, .heads = 1, .head_dim = 3}, nullptr), Catch::Contains("3 is odd"));
}

// SwiGLU kernels on the host against float64.
#include "cuda/swiglu.h"

#include "test/kernels/elements.h"

using namespace longlora::cuda;
using namespace longlora::cuda::test;

namespace {

struct Result {
  Matrix m, gradient;
};

Result by_definition(const Matrix& gate_up, const Matrix& dm, Round round) {
  const int64_t n = dm.columns;
  Result r{Matrix(dm.rows, n), Matrix(dm.rows, 2 * n)};
  for (int64_t t = 0; t < dm.rows; ++t) {
    for (int64_t i = 0; i < n; ++i) {
      const double g = gate_up[t][i], u = gate_up[t][n + i], d = dm[t][i];
      const double sigmoid = 1 / (1 + std::exp(-g)), silu = round(g * sigmoid);
      r.m[t][i] = round(silu * u);
      r.gradient[t][i] = round(round(d * u) * (sigmoid * (1 + g * (1 - sigmoid))));
      r.gradient[t][n + i] = round(d * silu);
    }
  }
  return r;
}

template <class T>
void check(const Matrix& gate_up, const Matrix& dm, int64_t room, int64_t shift) {
  const int64_t n = dm.columns;
  INFO(dm.rows << " rows of " << n << ", room " << room << ", shift " << shift);
  const Result plain = by_definition(gate_up, dm, nearest<T>), exact = by_definition(gate_up, dm, exactly);
  Cells<T> gu(gate_up, room, shift), d(dm, room, shift), m(dm.rows, n, room, shift);
  swiglu_forward({.element = Numbers<T>::kElement,
                  .rows = dm.rows,
                  .n = n,
                  .gate_up = gu.data(),
                  .gate_up_row = gu.stride(),
                  .m = m.data(),
                  .m_row = m.stride()},
                 nullptr);
  const Matrix forward = m.values();
  compare<T>("m", 2, forward.data, plain.m.data, exact.m.data);
  for (const bool again : {false, true}) {
    Cells<T> over(gate_up, room, shift), second(dm.rows, n, room, shift);
    swiglu_backward_in_place({.element = Numbers<T>::kElement,
                              .rows = dm.rows,
                              .n = n,
                              .gate_up = over.data(),
                              .gate_up_row = over.stride(),
                              .dm = d.data(),
                              .dm_row = d.stride(),
                              .m = again ? second.data() : nullptr,
                              .m_row = second.stride()},
                             nullptr);
    compare<T>("gradient", 3, over.values().data, plain.gradient.data, exact.gradient.data);
    if (again) compare<T>("m", 2, second.values().data, plain.m.data, exact.m.data);
  }
}

}  // namespace

TEMPLATE_TEST_CASE("swiglu equals its definition, values and gradients, for every odd shape", "[swiglu]", float, bf16,
                   fp16) {
  struct Case {
    int64_t rows, n, room, shift;
  };
  uint64_t seed = 1;
  for (const Case& c : std::vector<Case>{{1, 1, 0, 0},
                                         {1, 8, 0, 0},
                                         {3, 64, 8, 8},
                                         {5, 100, 0, 0},
                                         {4, 64, 1, 3},
                                         {2, 2500, 0, 0},
                                         {3, 2568, 0, 0},
                                         {0, 8, 0, 0}}) {
    INFO("seed " << seed);
    check<TestType>(random_matrix<TestType>(c.rows, 2 * c.n, seed, 2), random_matrix<TestType>(c.rows, c.n, seed + 1),
                    c.room, c.shift);
    seed += 2;
  }
}

TEMPLATE_TEST_CASE("swiglu holds for large, tiny and equal numbers", "[swiglu]", float, bf16, fp16) {
  const double largest = Numbers<TestType>::kLargest, tiny = Numbers<TestType>::kTiny;
  const std::vector<double> gates = {largest, -largest, 65504, -65504, 100, -100, 0, tiny, -tiny, 88, -88, -20};
  const auto columns = static_cast<int64_t>(gates.size());
  for (const double up : {1.0, tiny, 0.0}) {
    Matrix gate_up(1, 2 * columns), dm(1, columns);
    for (int64_t i = 0; i < columns; ++i) {
      gate_up[0][i] = nearest<TestType>(gates[i]);
      gate_up[0][columns + i] = nearest<TestType>(up);
      dm[0][i] = nearest<TestType>(0x1p-3);
    }
    check<TestType>(gate_up, dm, 0, 0);
  }
}

// RMSNorm kernels on the host against float64, and against the steps that plain operations take.
#include "cuda/rmsnorm.h"

#include "test/kernels/elements.h"

using namespace longlora::cuda;
using namespace longlora::cuda::test;

namespace {

struct Case {
  int64_t rows, d;
  bool residual = true, weight = true;
  int64_t room = 0, shift = 0;
  double spread = 1;
};

struct Result {
  Matrix x, y, dx, dw;
  std::vector<double> rstd;
};

struct Inputs {
  Matrix x, residual, w, dy, other;  // `other`: what flows past the norm, added to dx
};

constexpr float kEps = 1e-5f;

template <class T>
Inputs random_inputs(const Case& c, uint64_t seed) {
  return {random_matrix<T>(c.rows, c.d, seed, c.spread), random_matrix<T>(c.rows, c.d, seed + 1, c.spread),
          random_matrix<T>(1, c.d, seed + 2), random_matrix<T>(c.rows, c.d, seed + 3),
          random_matrix<T>(c.rows, c.d, seed + 4)};
}

// `narrow` rounds to the element type, `wide` to float32: where Llama's reference implementation stores what.
Result by_definition(const Case& c, const Inputs& in, Round narrow, Round wide) {
  Result r{in.x, Matrix(c.rows, c.d), Matrix(c.rows, c.d), Matrix(1, c.d), {}};
  for (int64_t t = 0; t < c.rows; ++t) {
    double squares = 0;
    for (int64_t i = 0; i < c.d; ++i) {
      if (c.residual) r.x[t][i] = narrow(in.x[t][i] + in.residual[t][i]);
      squares += wide(r.x[t][i] * r.x[t][i]);
    }
    const double rstd = wide(1 / wide(std::sqrt(wide(wide(squares / static_cast<double>(c.d)) + kEps))));
    r.rstd.push_back(rstd);
    double mean = 0;
    for (int64_t i = 0; i < c.d; ++i) {
      const double normed = narrow(wide(r.x[t][i] * rstd)), g = in.dy[t][i];
      r.y[t][i] = narrow(in.w[0][i] * normed);
      r.dw[0][i] += narrow(g * normed);
      mean += wide(narrow(in.w[0][i] * g) * wide(r.x[t][i] * rstd));
    }
    mean = wide(mean / static_cast<double>(c.d));
    for (int64_t i = 0; i < c.d; ++i) {
      const double gw = narrow(in.w[0][i] * in.dy[t][i]);
      r.dx[t][i] = narrow(wide(rstd * wide(gw - wide(wide(r.x[t][i] * rstd) * mean))));
      if (c.residual) r.dx[t][i] = narrow(r.dx[t][i] + in.other[t][i]);
    }
  }
  for (double& x : r.dw.data) x = wide(narrow(x) + 0.5);  // 0.5 was there before
  return r;
}

template <class T>
Result by_kernels(const Case& c, const Inputs& in) {
  Cells<T> x(in.x, c.room, c.shift), residual(in.residual, c.room, c.shift), w(in.w), y(c.rows, c.d, c.room, c.shift);
  Array<float> rstd(c.rows, NAN);
  RmsNormForward forward{
      .element = Numbers<T>::kElement, .rows = c.rows, .d = c.d, .eps = kEps, .x = x.data(), .x_row = x.stride()};
  if (c.residual) forward.residual = residual.data();
  forward.residual_row = residual.stride();
  forward.w = w.data();
  forward.y = y.data();
  forward.y_row = y.stride();
  forward.rstd = rstd.data();
  rmsnorm_forward(forward, nullptr);

  Cells<T> dy(in.dy, c.room, c.shift), other(in.other, c.room, c.shift), dx(c.rows, c.d, c.room, c.shift);
  Array<float> dw(c.d, 0.5f), work(rmsnorm_blocks(c.rows) * c.d, NAN);
  RmsNormBackward backward{
      .element = Numbers<T>::kElement, .rows = c.rows, .d = c.d, .x = x.data(), .x_row = x.stride()};
  backward.w = w.data();
  backward.rstd = rstd.data();
  backward.dy = dy.data();
  backward.dy_row = dy.stride();
  if (c.residual) backward.residual = other.data();
  backward.residual_row = other.stride();
  backward.dx = dx.data();
  backward.dx_row = dx.stride();
  if (c.weight) {
    backward.dw = dw.data();
    backward.work = work.data();
  }
  rmsnorm_backward(backward, nullptr);
  Result r{x.values(), y.values(), dx.values(), Matrix(1, c.d), {rstd.begin(), rstd.end()}};
  r.dw.data.assign(dw.begin(), dw.end());
  return r;
}

template <class T>
void check(const Case& c, const Inputs& in) {
  INFO(c.rows << " rows of " << c.d << (c.residual ? " with" : " without") << " residual, room " << c.room << ", shift "
              << c.shift << ", spread " << c.spread);
  const Result ours = by_kernels<T>(c, in);
  const Result plain = by_definition(c, in, nearest<T>, nearest<float>);
  Inputs summed = in;  // the sum is rounded before the norm; its error is its own
  if (c.residual) {
    CHECK(ours.x.data == plain.x.data);
    summed.x = plain.x;
    std::fill(summed.residual.data.begin(), summed.residual.data.end(), 0);
  }
  const Result exact = by_definition(c, summed, exactly, exactly);
  compare<float>("rstd", 2, ours.rstd, plain.rstd, exact.rstd);
  compare<T>("y", 2, ours.y.data, plain.y.data, exact.y.data);
  compare<T>("dx", 3, ours.dx.data, plain.dx.data, exact.dx.data);
  if (c.weight) {
    compare<float>("dw", 3, ours.dw.data, plain.dw.data, exact.dw.data);
  } else {
    CHECK(ours.dw.data == std::vector<double>(c.d, 0.5));
  }
}

}  // namespace

TEMPLATE_TEST_CASE("rmsnorm equals its definition, values and gradients, for every odd shape", "[rmsnorm]", float, bf16,
                   fp16) {
  uint64_t seed = 1;
  for (const Case& c : std::vector<Case>{{1, 1},
                                         {1, 8},
                                         {3, 64, false},
                                         {5, 100},
                                         {7, 257, false},
                                         {2, 256, true, false},
                                         {515, 24, false},
                                         {4, 520, true, true, 16, 8},
                                         {4, 520, true, true, 3, 1},
                                         {5, 1100, true, true, 1},
                                         {5, 8200},
                                         {0, 64}}) {
    INFO("seed " << seed);
    check<TestType>(c, random_inputs<TestType>(c, seed));
    seed += 10;
  }
}

TEMPLATE_TEST_CASE("rmsnorm holds for large, tiny and equal numbers", "[rmsnorm]", float, bf16, fp16) {
  Case c{5, 136};
  for (const double spread : {1e-3, 1e4, 0.0}) {
    c.spread = spread;
    check<TestType>(c, random_inputs<TestType>(c, 50));
  }
  c.residual = false;
  Inputs in = random_inputs<TestType>(c, 60);
  for (size_t i = 0; i < in.x.data.size(); ++i) in.x.data[i] = nearest<TestType>(i % 3 == 0 ? -65504 : 65504);
  check<TestType>(c, in);
  for (double& x : in.x.data) x = Numbers<TestType>::kTiny;  // below the normal range
  check<TestType>(c, in);
}

TEST_CASE("rmsnorm gives the same bits in every order of the lanes", "[rmsnorm]") {
  const Case c{70, 328};
  const Inputs in = random_inputs<bf16>(c, 80);
  const Result first = by_kernels<bf16>(c, in);
  in_every_order([&] {
    const Result again = by_kernels<bf16>(c, in);
    CHECK(again.y.data == first.y.data);
    CHECK(again.dx.data == first.dx.data);
    CHECK(again.dw.data == first.dw.data);
  });
}

TEST_CASE("rmsnorm writes its input's gradient over what it reads", "[rmsnorm]") {
  const Case c{3, 72};
  const Inputs in = random_inputs<bf16>(c, 90);
  const Result apart = by_kernels<bf16>(c, in);
  Cells<bf16> x(apart.x), w(in.w), dy(in.dy), other(in.other);
  Array<float> rstd(apart.rstd.begin(), apart.rstd.end());
  for (Cells<bf16>* target : {&dy, &other}) {
    Cells<bf16> dy_copy(in.dy), other_copy(in.other);
    Cells<bf16>& to = target == &dy ? dy_copy : other_copy;
    rmsnorm_backward({.rows = c.rows,
                      .d = c.d,
                      .x = x.data(),
                      .x_row = c.d,
                      .w = w.data(),
                      .rstd = rstd.data(),
                      .dy = dy_copy.data(),
                      .dy_row = c.d,
                      .residual = other_copy.data(),
                      .residual_row = c.d,
                      .dx = to.data(),
                      .dx_row = c.d},
                     nullptr);
    CHECK(to.values().data == apart.dx.data);
  }
}

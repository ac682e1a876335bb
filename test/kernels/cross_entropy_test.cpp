// The cross-entropy kernel on the host against float64.
#include "cuda/cross_entropy.h"

#include "test/kernels/elements.h"

using namespace longlora::cuda;
using namespace longlora::cuda::test;

namespace {

constexpr double kScale = 0.37f;

struct Result {
  std::vector<double> losses;
  Matrix gradient;
};

// `narrow` rounds to the type of the logits, `wide` to float32.
Result by_definition(const Matrix& logits, const std::vector<int32_t>& targets, Round narrow, Round wide) {
  Result r{{}, Matrix(logits.rows, logits.columns)};
  for (int64_t t = 0; t < logits.rows; ++t) {
    if (targets[t] < 0) {
      r.losses.push_back(0);
      continue;
    }
    const double* x = logits[t];
    const double top = *std::max_element(x, x + logits.columns);
    double sum = 0;
    for (int64_t i = 0; i < logits.columns; ++i) sum += wide(std::exp(wide(x[i] - top)));
    r.losses.push_back(wide(wide(top - x[targets[t]]) + wide(std::log(wide(sum)))));
    for (int64_t i = 0; i < logits.columns; ++i) {
      const double p = wide(wide(std::exp(wide(x[i] - top))) / sum);
      r.gradient[t][i] = narrow(wide(wide(p - (i == targets[t] ? 1 : 0)) * kScale));
    }
  }
  return r;
}

template <class T>
Result by_kernel(const Matrix& logits, const std::vector<int32_t>& targets, bool gradient, int64_t room,
                 int64_t shift) {
  Cells<T> cells(logits, room, shift);
  Array<float> losses(logits.rows, NAN);
  const Array<int32_t> reachable(targets.begin(), targets.end());
  cross_entropy({.element = Numbers<T>::kElement,
                 .rows = logits.rows,
                 .vocab = logits.columns,
                 .logits = cells.data(),
                 .row = cells.stride(),
                 .targets = reachable.data(),
                 .losses = losses.data(),
                 .gradient = gradient,
                 .scale = static_cast<float>(kScale)},
                nullptr);
  finish();
  return {{losses.begin(), losses.end()}, cells.values()};
}

template <class T>
void check(const Matrix& logits, const std::vector<int32_t>& targets, int64_t room = 0, int64_t shift = 0) {
  INFO(logits.rows << " rows of " << logits.columns << ", room " << room << ", shift " << shift);
  const Result exact = by_definition(logits, targets, exactly, exactly);
  const Result plain = by_definition(logits, targets, nearest<T>, nearest<float>);
  const Result without = by_kernel<T>(logits, targets, false, room, shift);
  const Result ours = by_kernel<T>(logits, targets, true, room, shift);
  CHECK(without.gradient.data == logits.data);
  CHECK(without.losses == ours.losses);
  compare<float>("losses", 2, ours.losses, plain.losses, exact.losses);
  compare<T>("gradient", 3, ours.gradient.data, plain.gradient.data, exact.gradient.data);
}

}  // namespace

TEMPLATE_TEST_CASE("cross-entropy equals its definition, values and gradients, for every vocabulary", "[cross_entropy]",
                   float, bf16, fp16) {
  struct Case {
    int64_t rows, vocab, room, shift;
  };
  uint64_t seed = 1;
  for (const Case& c : std::vector<Case>{{1, 1, 0, 0},
                                         {1, 2, 0, 0},
                                         {9, 7, 0, 1},
                                         {5, 101, 0, 0},
                                         {3, 4104, 8, 8},
                                         {4, 4500, 3, 5},
                                         {3, 32001, 0, 0},
                                         {1, 256000, 0, 0},
                                         {0, 64, 0, 0}}) {
    INFO("seed " << seed);
    std::vector<int32_t> targets;
    longlora::SplitMix random(seed);
    for (int64_t t = 0; t < c.rows; ++t) {
      targets.push_back(t == 2 ? -100 : static_cast<int32_t>(random.below(static_cast<uint64_t>(c.vocab))));
    }
    if (c.rows > 1) targets[1] = static_cast<int32_t>(c.vocab - 1);
    check<TestType>(random_matrix<TestType>(c.rows, c.vocab, seed, 3), targets, c.room, c.shift);
    ++seed;
  }
}

TEMPLATE_TEST_CASE("cross-entropy holds for large, tiny, equal and missing logits", "[cross_entropy]", float, bf16,
                   fp16) {
  const int64_t vocab = 40;
  const double limit = nearest<TestType>(65504);
  std::vector<int32_t> targets;
  Matrix logits(7, vocab);
  for (int64_t i = 0; i < vocab; ++i) {
    logits[0][i] = limit;                                       // all equal
    logits[1][i] = i == 3 ? limit : -limit;                     // certain, and right
    logits[2][i] = i == 4 ? limit : -limit;                     // certain, and wrong
    logits[3][i] = i % 2 == 0 ? -INFINITY : 0;                  // half are out of the question
    logits[4][i] = Numbers<TestType>::kTiny;                    //
    logits[5][i] = nearest<TestType>(static_cast<double>(-i));  //
    logits[6][i] = i == vocab - 1 ? 0 : -INFINITY;              // nothing but the last
  }
  targets = {0, 3, 3, 3, 3, 39, 39};
  check<TestType>(logits, targets);
  check<TestType>(logits, targets, 1, 1);
}

TEST_CASE("cross-entropy gives the same bits in every order of the lanes", "[cross_entropy]") {
  const Matrix logits = random_matrix<bf16>(2, 3001, 5, 2);
  const Result first = by_kernel<bf16>(logits, {5, 3000}, true, 0, 0);
  in_every_order([&] {
    const Result again = by_kernel<bf16>(logits, {5, 3000}, true, 0, 0);
    CHECK(again.losses == first.losses);
    CHECK(again.gradient.data == first.gradient.data);
  });
}

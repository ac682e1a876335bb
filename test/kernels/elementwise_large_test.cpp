// Elementwise kernels past 2^31 elements: rows that lie 2^30 elements apart, in memory that is only reserved, give the same
// bits as rows side by side; and of the longest tensors only the last block runs.
#include "cuda/adamw.h"
#include "cuda/cast.h"
#include "cuda/cross_entropy.h"
#include "cuda/dropout.h"
#include "cuda/embedding.h"
#include "cuda/rmsnorm.h"
#include "cuda/rotary.h"
#include "cuda/swiglu.h"
#include "test/kernels/elements.h"
#include "test/kernels/reserved.h"

using namespace longlora::cuda;
using namespace longlora::cuda::test;

namespace {

constexpr int64_t kRows = 4, kFar = int64_t{1} << 30;

// kRows rows, far apart or side by side.
template <class T>
class Rows {
 public:
  Rows(const Matrix& values, bool far)
      : columns_(values.columns), stride_(far ? kFar : columns_), memory_(kRows * stride_) {
    for (int64_t r = 0; r < kRows; ++r) {
      for (int64_t c = 0; c < columns_; ++c) data()[r * stride_ + c] = Numbers<T>::of(values[r][c]);
    }
  }
  [[nodiscard]] T* data() { return memory_.data(); }
  [[nodiscard]] int64_t stride() const { return stride_; }
  [[nodiscard]] std::vector<double> values() {
    std::vector<double> all;
    for (int64_t r = 0; r < kRows; ++r) {
      for (int64_t c = 0; c < columns_; ++c) all.push_back(Numbers<T>::value(data()[r * stride_ + c]));
    }
    return all;
  }

 private:
  int64_t columns_, stride_;
  Reserved<T> memory_;
};

Matrix some(int64_t columns, uint64_t seed) {
  return random_matrix<bf16>(kRows, columns, seed);
}

// run(far) -> everything that was written
template <class Run>
void same_near_and_far(Run&& run) {
  const std::vector<double> near = run(false);
  CHECK(run(true) == near);
  CHECK(near.back() != 0);
}

// Only the last block of a grid.
struct LastBlock {
  OptionsRestored restored;
  explicit LastBlock(int64_t block) {
    host::options().only = [block](const dim3& at) { return at.x == block; };
  }
};

}  // namespace

TEST_CASE("rmsnorm finds its way past 2^31 elements", "[rmsnorm][host]") {
  Cells<bf16> w(random_matrix<bf16>(1, 64, 1));
  same_near_and_far([&](bool far) {
    Rows<bf16> x(some(64, 2), far), residual(some(64, 3), far), y(Matrix(kRows, 64), far), dx(Matrix(kRows, 64), far);
    std::vector<float> rstd(kRows), dw(64), work(64 * rmsnorm_blocks(kRows));
    rmsnorm_forward({.rows = kRows,
                     .d = 64,
                     .eps = 1e-5f,
                     .x = x.data(),
                     .x_row = x.stride(),
                     .residual = residual.data(),
                     .residual_row = residual.stride(),
                     .w = w.data(),
                     .y = y.data(),
                     .y_row = y.stride(),
                     .rstd = rstd.data()},
                    nullptr);
    rmsnorm_backward({.rows = kRows,
                      .d = 64,
                      .x = x.data(),
                      .x_row = x.stride(),
                      .w = w.data(),
                      .rstd = rstd.data(),
                      .dy = y.data(),
                      .dy_row = y.stride(),
                      .residual = residual.data(),
                      .residual_row = residual.stride(),
                      .dx = dx.data(),
                      .dx_row = dx.stride(),
                      .dw = dw.data(),
                      .work = work.data()},
                     nullptr);
    std::vector<double> all = x.values();
    for (Rows<bf16>* m : {&y, &dx}) {
      for (const double v : m->values()) all.push_back(v);
    }
    all.insert(all.end(), dw.begin(), dw.end());
    return all;
  });
}

TEST_CASE("rotary finds its way past 2^31 elements", "[rotary][host]") {
  const std::vector<int32_t> positions = {0, 1, 2, 1};
  const std::vector<float> cos(3 * 32, 0.6f), sin(3 * 32, 0.8f);
  same_near_and_far([&](bool far) {
    Rows<bf16> x(some(64, 4), far);
    rotate_in_place({.tokens = kRows,
                     .heads = 1,
                     .head_dim = 64,
                     .x = x.data(),
                     .token = x.stride(),
                     .head = 64,
                     .positions = positions.data(),
                     .cos = cos.data(),
                     .sin = sin.data()},
                    nullptr);
    return x.values();
  });
  same_near_and_far([&](bool far) {  // heads far apart, and the table's rows
    Rows<bf16> x(some(64, 5), far);
    Reserved<float> table(int64_t{70'000'000} * 32);
    const std::vector<int32_t> last = {70'000'000 - 1};
    for (int64_t i = 0; i < 32; ++i) table.data()[int64_t{last[0]} * 32 + i] = 0.7f;
    rotate_in_place({.tokens = 1,
                     .heads = kRows,
                     .head_dim = 64,
                     .x = x.data(),
                     .token = 64,
                     .head = x.stride(),
                     .positions = last.data(),
                     .cos = table.data(),
                     .sin = table.data()},
                    nullptr);
    return x.values();
  });
}

TEST_CASE("swiglu finds its way past 2^31 elements", "[swiglu][host]") {
  same_near_and_far([&](bool far) {
    Rows<bf16> gate_up(some(128, 6), far), dm(some(64, 7), far), m(Matrix(kRows, 64), far);
    swiglu_forward({.rows = kRows,
                    .n = 64,
                    .gate_up = gate_up.data(),
                    .gate_up_row = gate_up.stride(),
                    .m = m.data(),
                    .m_row = m.stride()},
                   nullptr);
    std::vector<double> all = m.values();
    swiglu_backward_in_place({.rows = kRows,
                              .n = 64,
                              .gate_up = gate_up.data(),
                              .gate_up_row = gate_up.stride(),
                              .dm = dm.data(),
                              .dm_row = dm.stride(),
                              .m = m.data(),
                              .m_row = m.stride()},
                             nullptr);
    for (Rows<bf16>* written : {&m, &gate_up}) {
      for (const double v : written->values()) all.push_back(v);
    }
    return all;
  });
}

TEST_CASE("dropout finds its way past 2^31 elements", "[dropout][host]") {
  same_near_and_far([&](bool far) {
    Matrix ones(kRows, 65);
    std::fill(ones.data.begin(), ones.data.end(), 1);
    Rows<bf16> x(ones, far), y(Matrix(kRows, 65), far);
    dropout({.rows = kRows,
             .d = 65,
             .x = x.data(),
             .x_row = x.stride(),
             .y = y.data(),
             .y_row = y.stride(),
             .p = 0.1,
             .seed = 3},
            nullptr);
    return y.values();
  });
}

TEST_CASE("cross-entropy finds its way past 2^31 elements", "[cross_entropy][host]") {
  const std::vector<int32_t> targets = {1, -1, 0, 99};
  same_near_and_far([&](bool far) {
    Rows<bf16> logits(some(100, 8), far);
    std::vector<float> losses(kRows);
    cross_entropy({.rows = kRows,
                   .vocab = 100,
                   .logits = logits.data(),
                   .row = logits.stride(),
                   .targets = targets.data(),
                   .losses = losses.data(),
                   .gradient = true},
                  nullptr);
    std::vector<double> all(losses.begin(), losses.end());
    for (const double v : logits.values()) all.push_back(v);
    return all;
  });
}

TEST_CASE("the embedding's gradient finds its way past 2^31 elements", "[embedding][host]") {
  const TokenRuns work = token_runs(std::vector<int32_t>{3, 0, 3, 1});
  same_near_and_far([&](bool far) {
    Rows<bf16> dx(some(64, 9), far);
    Rows<float> table(some(64, 10), far);
    embedding_backward({.d = 64,
                        .dx = dx.data(),
                        .dx_row = dx.stride(),
                        .order = work.order.data(),
                        .runs = work.runs.data(),
                        .run_count = static_cast<int64_t>(work.runs.size()),
                        .dtable = table.data(),
                        .dtable_row = table.stride()},
                       nullptr);
    return table.values();
  });
}

TEST_CASE("adamw and cast find their way past 2^31 elements", "[adamw][cast][host]") {
  constexpr int64_t kCount = (int64_t{1} << 31) + 100, kLast = kCount - 1;
  Reserved<float> master(kCount), gradient(kCount), first(kCount), second(kCount);
  Reserved<bf16> value(kCount), copy(kCount);
  master.data()[kLast] = 2;
  gradient.data()[kLast] = -3;
  const AdamWTensor tensor{.master = master.data(),
                           .gradient = gradient.data(),
                           .first = first.data(),
                           .second = second.data(),
                           .count = kCount,
                           .value = value.data(),
                           .columns = 100,  // no divisor of the count, but of no matter to the last row
                           .value_row = 100};
  const std::vector<AdamWChunk> chunks = adamw_chunks({&tensor, 1});
  const auto count = static_cast<int64_t>(chunks.size());
  CHECK((chunks.back().end == kCount && chunks[count - 2].end == chunks.back().begin));
  const AdamWWork work{&tensor, chunks.data(), count};
  std::vector<double> partial(chunks.size());
  GradientNorm norm;
  {
    const LastBlock last(count - 1);
    gradient_norm(work, 0, partial.data(), &norm, nullptr);
    CHECK(partial.back() == 9);
    adamw(work, {.lr = 0.5}, &norm, nullptr);
  }
  CHECK(master.data()[kLast] == 2.5f);  // the first step goes by the learning rate, whatever the gradient
  CHECK(Numbers<bf16>::value(value.data()[kLast]) == 2.5);
  CHECK(gradient.data()[kLast] == 0);
  {
    const LastBlock last((kCount / 8 + kCount % 8 + 255) / 256 - 1);
    cast(Element::float32, master.data(), Element::bfloat16, copy.data(), kCount, nullptr);
  }
  CHECK(Numbers<bf16>::value(copy.data()[kLast]) == 2.5);
}

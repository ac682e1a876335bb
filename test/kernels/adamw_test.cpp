// The optimizer's kernels on the host: the bits of LibTorch's fused AdamW on the CPU, the norm in float64.
#include "cuda/adamw.h"

#include "test/kernels/adamw_golden.h"
#include "test/kernels/elements.h"

using namespace longlora::cuda;
using namespace longlora::cuda::test;

namespace {

// A tensor with its value of T, [count / columns, columns] in rows `columns + room` apart.
template <class T>
struct Tensor {
  Cells<float> master, gradient, first, second;
  Cells<T> value;
  AdamWTensor table;
  Tensor(int64_t count, int64_t columns, int64_t room, int64_t shift, bool decays, uint64_t seed, double spread = 1)
      : master(random_matrix<float>(1, count, seed, spread), 0, shift),
        gradient(random_matrix<float>(1, count, seed + 1, spread), 0, shift),
        first(random_matrix<float>(1, count, seed + 2, spread), 0, shift),
        second(squared(random_matrix<float>(1, count, seed + 3, spread)), 0, shift),
        value(columns == 0 ? 0 : count / columns, columns, room, shift) {
    table = {.master = master.data(),
             .gradient = gradient.data(),
             .first = first.data(),
             .second = second.data(),
             .count = count,
             .decays = decays,
             .value = columns == 0 ? nullptr : value.data(),
             .element = Numbers<T>::kElement,
             .columns = columns,
             .value_row = value.stride(),
             .to_value = 1.75f};
  }
  static Matrix squared(Matrix m) {
    for (double& x : m.data) x = nearest<float>(x * x);
    return m;
  }
};

// Tensors, chunks and the norm where the kernels reach them.
struct Work {
  Array<AdamWTensor> tensors;
  Array<AdamWChunk> chunks;
  Array<double> partial;
  Array<GradientNorm> norm = Array<GradientNorm>(1);
  explicit Work(const std::vector<AdamWTensor>& table) : tensors(table.begin(), table.end()) {
    const std::vector<AdamWChunk> all = adamw_chunks(table);
    chunks.assign(all.begin(), all.end());
    partial.resize(chunks.size(), NAN);
  }
  [[nodiscard]] AdamWWork view() const { return {tensors.data(), chunks.data(), static_cast<int64_t>(chunks.size())}; }
  GradientNorm measure(double max_norm) {
    gradient_norm(view(), max_norm, partial.data(), norm.data(), nullptr);
    finish();
    return norm[0];
  }
  void step(const AdamWStep& step) {
    adamw(view(), step, norm.data(), nullptr);
    finish();
  }
};

struct State {
  std::vector<double> p, m, v;
};

// `round`: nearest<float> for plain operations, exactly for the truth.
State by_definition(State s, const std::vector<double>& g, double clip, bool decays, const AdamWStep& o, Round round) {
  const double root = std::sqrt(1 - std::pow(o.beta2, o.step)), size = o.lr / (1 - std::pow(o.beta1, o.step));
  for (size_t i = 0; i < g.size(); ++i) {
    const double grad = round(g[i] * clip);
    if (decays) s.p[i] = round(s.p[i] * round(1 - o.lr * o.weight_decay));
    s.m[i] = round(round(round(o.beta1) * s.m[i]) + round(round(1 - o.beta1) * grad));
    s.v[i] = round(round(round(o.beta2) * s.v[i]) + round(round(round(1 - o.beta2) * grad) * grad));
    const double divisor = round(round(round(std::sqrt(s.v[i])) / round(root)) + round(o.eps));
    s.p[i] = round(s.p[i] - round(round(round(size) * s.m[i]) / divisor));
  }
  return s;
}

template <class T>
void check(const std::vector<Tensor<T>*>& tensors, const AdamWStep& step, double max_norm) {
  std::vector<AdamWTensor> table;
  std::vector<State> before;
  std::vector<std::vector<double>> gradients;
  long double squares = 0;
  for (Tensor<T>* t : tensors) {
    table.push_back(t->table);
    before.push_back({t->master.values().data, t->first.values().data, t->second.values().data});
    gradients.push_back(t->gradient.values().data);
    for (const long double g : gradients.back()) squares += g * g;
  }
  Work work(table);
  const GradientNorm norm = work.measure(max_norm);
  CHECK(std::abs(norm.norm - static_cast<double>(std::sqrt(squares))) <= 1e-14 * norm.norm);
  const bool clips = max_norm > 0 && norm.norm > max_norm;
  CHECK(norm.clip == (clips ? static_cast<float>(max_norm / (norm.norm + 1e-6)) : 1.0f));
  work.step(step);
  for (size_t i = 0; i < tensors.size(); ++i) {
    INFO("tensor " << i << " of " << table[i].count);
    Tensor<T>& t = *tensors[i];
    const bool decays = t.table.decays;
    const State plain = by_definition(before[i], gradients[i], norm.clip, decays, step, nearest<float>);
    const State exact = by_definition(before[i], gradients[i], norm.clip, decays, step, exactly);
    const std::vector<double> p = t.master.values().data;
    compare<float>("master", 2, p, plain.p, exact.p);
    compare<float>("first moment", 2, t.first.values().data, plain.m, exact.m);
    compare<float>("second moment", 2, t.second.values().data, plain.v, exact.v);
    CHECK(t.gradient.values().data == std::vector<double>(gradients[i].size(), 0.0));
    std::vector<double> values;
    for (const double x : p) values.push_back(nearest<T>(static_cast<float>(x) * t.table.to_value));
    if (t.table.value != nullptr) CHECK(t.value.values().data == values);
  }
}

}  // namespace

TEST_CASE("adamw does three steps to the bit as LibTorch does them", "[adamw]") {
  for (const AdamWGolden& golden : kAdamWGoldens) {
    Array<float> p(16), g(16), m(16), v(16);
    for (int i = 0; i < 16; ++i) p[i] = static_cast<float>((i * 37 + 11) % 64 - 32) / 7.0f;
    Work work({{.master = p.data(), .gradient = g.data(), .first = m.data(), .second = v.data(), .count = 16}});
    for (int step = 1; step <= 3; ++step) {
      for (int i = 0; i < 16; ++i) g[i] = static_cast<float>((i * 53 + step * 29 + 7) % 128 - 64) / 11.0f;
      work.step({golden.lr, golden.beta1, golden.beta2, golden.eps, golden.weight_decay, step});
    }
    INFO("lr " << golden.lr);
    CHECK(p == Array<float>(golden.master, golden.master + 16));
    CHECK(m == Array<float>(golden.first, golden.first + 16));
    CHECK(v == Array<float>(golden.second, golden.second + 16));
  }
}

TEMPLATE_TEST_CASE("adamw steps through all tensors at once and refreshes their values", "[adamw]", float, bf16, fp16) {
  using Tensor = Tensor<TestType>;
  Tensor one(1, 1, 0, 0, false, 1), norms(100, 100, 0, 0, false, 2), plain(8 * 24, 24, 0, 0, true, 3);
  Tensor slice(64 * 16, 16, 8, 0, true, 4), uneven(64 * 16, 16, 3, 0, true, 11), odd_slice(50 * 3, 3, 6, 0, true, 5),
      shifted(300, 300, 0, 1, true, 6);
  Tensor no_value(77, 0, 0, 0, true, 7), nothing(0, 1, 0, 0, true, 8), chunks(8192 + 13, 8192 + 13, 0, 0, true, 9);
  Tensor whole(16384, 64, 0, 8, true, 10);
  check<TestType>({&one, &norms, &plain, &slice, &uneven, &odd_slice, &shifted, &no_value, &nothing, &chunks, &whole},
                  {.lr = 1e-2, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.1, .step = 3}, 1.0);
  check<TestType>({&one, &chunks}, {.lr = 2e-5, .beta1 = 0.2, .beta2 = 0.999, .step = 1000}, 0);
}

TEST_CASE("adamw holds for large and tiny gradients", "[adamw]") {
  for (const double spread : {1e-30, 1e-12, 1e12}) {
    INFO("spread " << spread);
    Tensor<bf16> t(200, 8, 8, 0, true, 20, spread), exact_fit(64, 64, 0, 0, false, 21, spread);
    check<bf16>({&t, &exact_fit}, {.lr = 1e-3, .step = 1}, 0);
    Tensor<bf16> clipped(100, 100, 0, 0, true, 22, spread);
    check<bf16>({&clipped}, {.lr = 1e-3, .step = 1}, spread);
  }
}

TEST_CASE("adamw changes nothing when a gradient is not finite", "[adamw]") {
  for (const float bad : {INFINITY, -INFINITY, NAN}) {
    Tensor<bf16> t(3000, 3000, 0, 0, true, 30);
    t.gradient.data()[2999] = bad;
    Work work({t.table});
    const State before{t.master.values().data, t.first.values().data, t.second.values().data};
    CHECK_FALSE(std::isfinite(work.measure(1.0).norm));
    work.step({.lr = 1});
    CHECK(t.master.values().data == before.p);
    CHECK(t.first.values().data == before.m);
    CHECK(t.second.values().data == before.v);
    CHECK(t.gradient.values()[0][0] != 0);
  }
}

TEST_CASE("the gradient's norm is the same bits in every order of the lanes", "[adamw]") {
  Tensor<float> t(20001, 0, 0, 0, true, 40), none(0, 0, 0, 0, true, 41);
  Work work({t.table});
  const double first = work.measure(0).norm;
  in_every_order([&] { CHECK(work.measure(0).norm == first); });
  CHECK(Work({none.table}).measure(1).norm == 0);
}

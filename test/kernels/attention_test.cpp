// The attention kernels on the host against plain loops in float64, values and gradients. Tolerance: our error may be
// twice (gradients: three times) that of plain operations at the same precision, plus the rounding of the result itself.
#include <catch2/catch.hpp>

#include <cmath>
#include <cstring>
#include <sstream>
#include <vector>

#include "core/base/random.h"
#include "cuda/attention.h"
#include "cuda/host/convert.h"
#include "test/kernels/attention_reference.h"
#include "test/kernels/support.h"

using namespace longlora::cuda;
using longlora::SplitMix;
using longlora::ops::GroupPlan;
using test::Cube;

namespace {

template <class T>
struct Numbers;
template <>
struct Numbers<bf16> {
  static constexpr Element kElement = Element::bfloat16;
  static constexpr double kEpsilon = 0x1p-8, kTiny = 0x1p-133;
  static double value(bf16 x) { return host::bf16_bits_to_float(x.bits); }
  static bf16 of(double x) { return {host::float_to_bf16_bits(static_cast<float>(x))}; }
};
template <>
struct Numbers<fp16> {
  static constexpr Element kElement = Element::float16;
  static constexpr double kEpsilon = 0x1p-11, kTiny = 0x1p-24;
  static double value(fp16 x) { return host::fp16_bits_to_float(x.bits); }
  static fp16 of(double x) { return {host::float_to_fp16_bits(static_cast<float>(x))}; }
};
template <class T>
double rounded(double x) {
  return Numbers<T>::value(Numbers<T>::of(x));
}

struct Case {
  std::vector<int64_t> documents;
  int64_t group, heads, kv_heads, head_size;  // group 0: full attention
  int64_t window = 0;
  bool backward = true;

  [[nodiscard]] GroupPlan plan() const {
    if (group == 0) return GroupPlan::full(documents, heads, kv_heads, window);
    return GroupPlan::s2(documents, group, heads, kv_heads, window);
  }
  [[nodiscard]] std::string text() const {
    std::ostringstream s;
    s << "documents";
    for (const int64_t d : documents) s << ' ' << d;
    s << " group " << group << " heads " << heads << "/" << kv_heads << " D " << head_size << " window " << window;
    return s.str();
  }
};

struct Inputs {
  Cube q, k, v, dout;
};

// Normal-looking numbers, already rounded to T.
template <class T>
Inputs random_inputs(const Case& c, uint64_t seed, double spread = 1) {
  SplitMix random(seed);
  const auto fill = [&](Cube& cube, double size) {
    for (double& x : cube.data) {
      double sum = -6;
      for (int i = 0; i < 12; ++i) sum += random.uniform();
      x = rounded<T>(sum * size);
    }
  };
  const int64_t tokens = c.documents.back();
  Inputs in{Cube(tokens, c.heads, c.head_size), Cube(tokens, c.kv_heads, c.head_size),
            Cube(tokens, c.kv_heads, c.head_size), Cube(tokens, c.heads, c.head_size)};
  fill(in.q, spread);
  fill(in.k, spread);
  fill(in.v, 1);
  fill(in.dout, 1);
  return in;
}

// A buffer with several matrices of heads side by side, and room between them that nobody may touch.
template <class T>
struct Stacked {
  int64_t tokens, row, size;
  test::Array<T> memory;
  static constexpr uint16_t kUntouched = 0x7fed;  // a NaN
  Stacked(int64_t t, int64_t heads, int64_t d) : tokens(t), row((heads + 1) * d + 8), size(d), memory(t * row) {
    for (T& x : memory) x.bits = kUntouched;
  }
  void put(const Cube& from, int64_t first) {
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t h = 0; h < from.heads; ++h) {
        for (int64_t d = 0; d < size; ++d) *at(t, first + h, d) = Numbers<T>::of(from.at(t, h)[d]);
      }
    }
  }
  [[nodiscard]] Cube get(int64_t first, int64_t heads) {
    Cube cube(tokens, heads, size);
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t h = 0; h < heads; ++h) {
        for (int64_t d = 0; d < size; ++d) cube.at(t, h)[d] = Numbers<T>::value(*at(t, first + h, d));
      }
    }
    return cube;
  }
  [[nodiscard]] T* at(int64_t t, int64_t h, int64_t d) { return &memory[t * row + h * size + d]; }
  [[nodiscard]] ConstHeads view(int64_t first) { return {at(0, first, 0), row, size}; }
  [[nodiscard]] Heads target(int64_t first) { return {at(0, first, 0), row, size}; }
  // Whether all beside heads [0, heads) is as it was.
  [[nodiscard]] bool clean(int64_t heads) const {
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t i = heads * size; i < row; ++i) {
        if (memory[t * row + i].bits != kUntouched) return false;
      }
    }
    return true;
  }
};

AttentionShape shape_of(const Case& c, const GroupPlan& plan, Element element) {
  AttentionShape shape;
  shape.tokens = plan.tokens;
  shape.heads = plan.heads;
  shape.kv_heads = plan.kv_heads;
  shape.plain_heads = plan.plain_heads;
  shape.window = plan.window;
  shape.head_size = static_cast<int>(c.head_size);
  shape.element = element;
  shape.scale = static_cast<float>(1 / std::sqrt(static_cast<double>(c.head_size)));
  return shape;
}

// atomic: dq by atomic sums.
template <class T>
test::Attention run_kernels(const Case& c, const Inputs& in, bool atomic = false) {
  const GroupPlan plan = c.plan();
  const AttentionShape shape = shape_of(c, plan, Numbers<T>::kElement);
  const auto [query_list, query_heads] = query_schedule(shape, plan.plain, plan.shifted);
  const auto [key_list, key_heads] = key_schedule(shape, plan.plain, plan.shifted);
  const test::Array<QueryTile> query_tiles(query_list.begin(), query_list.end());
  const test::Array<KeyTile> key_tiles(key_list.begin(), key_list.end());
  const QueryWork queries{query_tiles.data(), static_cast<int64_t>(query_tiles.size()), query_heads};
  const KeyWork keys{key_tiles.data(), static_cast<int64_t>(key_tiles.size()), key_heads};
  const int64_t tokens = plan.tokens, heads = c.heads, kv_heads = c.kv_heads;
  Stacked<T> qkv(tokens, heads + 2 * kv_heads, c.head_size), out(tokens, heads, c.head_size);
  qkv.put(in.q, 0);
  qkv.put(in.k, heads);
  qkv.put(in.v, heads + kv_heads);
  test::Array<float> lse(heads * tokens, NAN);
  attention_forward(shape, queries, qkv.view(0), qkv.view(heads), qkv.view(heads + kv_heads), out.target(0), lse.data(),
                    nullptr);
  test::finish();
  REQUIRE(out.clean(heads));
  test::Attention result;
  result.out = out.get(0, heads);
  result.lse.assign(lse.begin(), lse.end());
  if (!c.backward) return result;

  Stacked<T> dout(tokens, heads, c.head_size), grads(tokens, heads + 2 * kv_heads, c.head_size);
  dout.put(in.dout, 0);
  test::Array<float> delta(heads * tokens, NAN), dq_sum(atomic ? heads * tokens * c.head_size : 0, NAN);
  attention_backward(shape, queries, keys, dout.view(0), qkv.view(0), qkv.view(heads), qkv.view(heads + kv_heads),
                     out.view(0), lse.data(), delta.data(), atomic ? dq_sum.data() : nullptr, grads.target(0),
                     grads.target(heads), grads.target(heads + kv_heads), nullptr);
  test::finish();
  REQUIRE(grads.clean(heads + 2 * kv_heads));
  result.dq = grads.get(0, heads);
  result.dk = grads.get(heads, kv_heads);
  result.dv = grads.get(heads + kv_heads, kv_heads);
  return result;
}

double off(const Cube& a, const Cube& b) {
  double worst = 0;
  for (size_t i = 0; i < a.data.size(); ++i) {
    const double distance = std::abs(a.data[i] - b.data[i]);
    if (!(distance <= worst)) worst = distance;  // NaN stays
  }
  return worst;
}

double largest(const Cube& a) {
  return off(a, Cube(a.tokens, a.heads, a.size));
}

template <class T>
void compare(const char* what, double factor, const Cube& ours, const Cube& plain, const Cube& exact,
             double noise = 0) {
  INFO(what);
  const double epsilon = Numbers<T>::kEpsilon * largest(exact) + Numbers<T>::kTiny;
  CHECK(off(ours, exact) <= factor * off(plain, exact) + epsilon + noise);
}

template <class T>
void check(const Case& c, const Inputs& in, const test::Attention& ours) {
  const double scale = shape_of(c, c.plan(), Numbers<T>::kElement).scale;
  const test::Attention exact = test::attention(c.plan(), scale, in.q, in.k, in.v, in.dout, test::exact);
  const test::Attention plain = test::attention(c.plan(), scale, in.q, in.k, in.v, in.dout, rounded<T>);
  INFO(c.text());
  compare<T>("out", 2, ours.out, plain.out, exact.out);
  double lse_off = 0, lse_size = 1;
  for (size_t i = 0; i < exact.lse.size(); ++i) {
    const double distance = std::abs(ours.lse[i] - exact.lse[i]);
    if (!(distance <= lse_off)) lse_off = distance;
    lse_size = std::max(lse_size, std::abs(exact.lse[i]));
  }
  CHECK(lse_off <= 1e-5 * lse_size);
  if (!c.backward) return;
  // ds is p times a difference of two float32 sums, which cancel where there is one key.
  const double noise = 0x1p-24 * static_cast<double>(c.head_size) * largest(in.dout) * largest(in.v) * scale;
  compare<T>("dq", 3, ours.dq, plain.dq, exact.dq, noise * largest(in.k));
  compare<T>("dk", 3, ours.dk, plain.dk, exact.dk, noise * largest(in.q));
  compare<T>("dv", 3, ours.dv, plain.dv, exact.dv);
}

template <class T>
void check_random(const Case& c, uint64_t seed, double spread = 1, bool atomic = false) {
  INFO("seed " << seed << " spread " << spread << " atomic " << atomic);
  const Inputs in = random_inputs<T>(c, seed, spread);
  check<T>(c, in, run_kernels<T>(c, in, atomic));
}

}  // namespace

TEMPLATE_TEST_CASE("attention equals its definition for every odd shape", "[attention]", bf16, fp16) {
  uint64_t seed = 1;
  for (const Case& c : std::vector<Case>{
           {{0, 1}, 0, 1, 1, 64},                   // one token
           {{0, 1}, 4, 2, 2, 128},                  //
           {{0, 7}, 16, 2, 2, 64},                  // shorter than a group
           {{0, 63}, 64, 2, 1, 64},                 // G - 1
           {{0, 65}, 64, 2, 2, 64},                 // G + 1
           {{0, 129}, 128, 2, 2, 128},              //
           {{0, 200}, 50, 4, 2, 64},                // groups that are no multiple of anything
           {{0, 150}, 33, 2, 2, 128},               // an odd group
           {{0, 1, 3, 70, 71, 190}, 40, 4, 4, 64},  // documents, some of one token
           {{0, 100, 230}, 0, 2, 1, 64},            // full attention
           {{0, 257}, 0, 1, 1, 128},                //
       }) {
    check_random<TestType>(c, seed);
    if (Numbers<TestType>::kElement == Element::bfloat16) check_random<TestType>(c, seed, 1, true);
    ++seed;
  }
}

TEMPLATE_TEST_CASE("attention reads grouped keys and values of every ratio", "[attention]", bf16, fp16) {
  uint64_t seed = 20;
  struct Heads {
    int64_t all, kv;
  };
  for (const Heads heads : {Heads{2, 2}, {4, 2}, {6, 2}, {8, 2}, {5, 1}, {6, 1}, {7, 1}, {8, 1}, {3, 3}, {6, 3}}) {
    const bool atomic = heads.kv % 2 != 0 && Numbers<TestType>::kElement == Element::bfloat16;
    check_random<TestType>({{0, 45}, 32, heads.all, heads.kv, 64}, seed++, 1, atomic);
  }
}

TEMPLATE_TEST_CASE("attention sees no farther than its window", "[attention]", bf16, fp16) {
  uint64_t seed = 40;
  for (const int64_t window : {1, 5, 64, 65, 100}) {
    check_random<TestType>({{0, 20, 230}, 0, 2, 1, 64, window}, seed++);
    check_random<TestType>({{0, 140}, 120, 2, 2, 64, window}, seed++, 1, window % 2 != 0);
  }
  check_random<TestType>({{0, 40}, 0, 1, 1, 64, int64_t{1} << 40}, seed);
}

TEST_CASE("attention gives the same bits in every order of the lanes", "[attention]") {
  const Case c{{0, 50, 180}, 64, 2, 1, 64};
  const Inputs in = random_inputs<bf16>(c, 60);
  const test::Attention first = run_kernels<bf16>(c, in);
  test::in_every_order([&] {
    const test::Attention again = run_kernels<bf16>(c, in);
    CHECK(again.out.data == first.out.data);
    CHECK(again.lse == first.lse);
    CHECK(again.dq.data == first.dq.data);
    CHECK(again.dk.data == first.dk.data);
    CHECK(again.dv.data == first.dv.data);
  });
}

TEMPLATE_TEST_CASE("attention holds for large, tiny and equal numbers", "[attention]", bf16, fp16) {
  const Case c{{0, 90}, 64, 2, 2, 64};
  const double limit = 65504;
  check_random<TestType>(c, 70, 8);     // nearly one-hot softmax
  check_random<TestType>(c, 71, 1e-3);  // nearly uniform softmax
  Inputs in = random_inputs<TestType>(c, 72);
  for (double& x : in.v.data) x = rounded<TestType>(x > 0 ? limit : -limit);
  for (double& x : in.dout.data) x = rounded<TestType>(x * 0x1p-14);
  check<TestType>(c, in, run_kernels<TestType>(c, in));
  in = random_inputs<TestType>(c, 73);  // values and gradients below the normal range
  for (double& x : in.v.data) x = std::round(x * 50) * Numbers<TestType>::kTiny;
  for (double& x : in.q.data) x = std::round(x * 50) * Numbers<TestType>::kTiny;
  check<TestType>(c, in, run_kernels<TestType>(c, in));
  for (Cube* cube : {&in.q, &in.k, &in.v, &in.dout}) {
    for (double& x : cube->data) x = 1;
  }
  const test::Attention equal = run_kernels<TestType>(c, in);
  check<TestType>(c, in, equal);
  for (const double x : equal.out.data) REQUIRE(x == 1);
  // Scores of 65504^2, the largest that binary16 can make of one product: the softmax is shared by the best keys.
  Case forward = c;
  forward.backward = false;
  for (Cube* cube : {&in.q, &in.k}) {
    for (size_t i = 0; i < cube->data.size(); ++i) cube->data[i] = i % 64 != 0 ? 0 : i / 64 % 3 == 0 ? -limit : limit;
    for (double& x : cube->data) x = rounded<TestType>(x);
  }
  for (size_t i = 0; i < in.v.data.size(); ++i) in.v.data[i] = static_cast<double>(i % 5);
  const test::Attention exact = test::attention(forward.plan(), 0.125, in.q, in.k, in.v, in.dout, test::exact);
  const test::Attention ours = run_kernels<TestType>(forward, in);
  CHECK(off(ours.out, exact.out) <= Numbers<TestType>::kEpsilon * largest(exact.out));
}

TEST_CASE("attention reads shared memory without bank conflicts", "[attention][host]") {
  host::statistics() = {};
  for (const int64_t size : {64, 128}) {
    const Case c{{0, 130}, 0, 1, 1, size};
    (void)run_kernels<bf16>(c, random_inputs<bf16>(c, 80));
  }
  CHECK(host::statistics().ldmatrix > 1000);
  CHECK(host::statistics().bank_conflicts == 0);
}

TEST_CASE("attention refuses what it cannot do, and says what", "[attention]") {
  Case c{{0, 10}, 0, 1, 1, 64};
  AttentionShape shape = shape_of(c, c.plan(), Element::bfloat16);
  const std::vector<int64_t> good = {0, 10}, gap = {0, 4, 4, 10}, low = {0, 9};
  CHECK_THROWS_WITH(query_schedule(shape, good, low), Catch::Contains("boundaries must rise from 0 to 10"));
  CHECK_THROWS_WITH(key_schedule(shape, gap, good), Catch::Contains("boundaries must rise from 0 to 10"));
  shape.kv_heads = 2;
  CHECK_THROWS_WITH(key_schedule(shape, good, good), Catch::Contains("1 heads, 2 KV heads"));
  shape = shape_of(c, c.plan(), Element::bfloat16);
  test::Array<bf16> x(10 * 64);
  test::Array<float> lse(10);
  const ConstHeads in{x.data(), 64, 64};
  const Heads out{x.data(), 64, 64};
  const ConstHeads odd{x.data(), 65, 64}, off{x.data() + 1, 64, 64};
  CHECK_THROWS_WITH(attention_forward(shape, {}, odd, in, in, out, lse.data(), nullptr),
                    Catch::Contains("rows of q are not aligned to 16 bytes (strides 65, 64)"));
  CHECK_THROWS_WITH(attention_forward(shape, {}, in, in, off, out, lse.data(), nullptr), Catch::Contains("rows of v"));
  shape.head_size = 96;
  CHECK_THROWS_WITH(attention_forward(shape, {}, in, in, in, out, lse.data(), nullptr),
                    Catch::Contains("head size 96; 64 and 128 are built"));
  shape.head_size = 64;
  shape.tokens = int64_t{1} << 31;
  CHECK_THROWS_WITH(attention_forward(shape, {}, in, in, in, out, lse.data(), nullptr),
                    Catch::Contains("a batch of 2147483648 tokens"));
  shape.tokens = 10;
  shape.element = Element::float32;
  CHECK_THROWS_WITH(attention_forward(shape, {}, in, in, in, out, lse.data(), nullptr),
                    Catch::Contains("must be bfloat16 or float16"));
}

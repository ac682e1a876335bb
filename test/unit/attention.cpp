// Every attention backend against softmax attention written out in float64 with LibTorch's autograd, values
// and gradients.
#include "core/ops/attention.h"

#include <fmt/ranges.h>
#include <catch2/catch.hpp>

#include <random>

#include "core/base/error.h"
#include "core/base/isa.h"
#include "core/model/device.h"
#include "core/ops/attention_backends.h"
#include "cpu_numbers.h"

#ifndef LONGLORA_KERNELS_ON_HOST
#define LONGLORA_KERNELS_ON_HOST 0
#endif

using namespace longlora;
using namespace longlora::ops;

namespace {

struct Case {
  std::vector<int64_t> documents;
  int64_t group, heads, kv_heads, head_dim;  // group 0: full attention
  int64_t window = 0;
  double spread = 1;  // size of the numbers in q and k

  [[nodiscard]] GroupPlan plan() const {
    if (group == 0) return GroupPlan::full(documents, heads, kv_heads, window);
    return GroupPlan::s2(documents, group, heads, kv_heads, window);
  }
};

std::string describe(const Case& c) {
  return fmt::format("documents [{}] group {} heads {}/{} D {} window {} spread {}", fmt::join(c.documents, " "),
                     c.group, c.heads, c.kv_heads, c.head_dim, c.window, c.spread);
}

// One buffer [T, (Hq + 2 Hkv) * D] and the views of it that attention gets.
struct Stacked {
  at::Tensor buffer, q, k, v;
  Stacked(const at::Tensor& filled, const Case& c) : buffer(filled) {
    const at::Tensor heads = buffer.unflatten(1, {c.heads + 2 * c.kv_heads, c.head_dim});
    q = heads.narrow(1, 0, c.heads);
    k = heads.narrow(1, c.heads, c.kv_heads);
    v = heads.narrow(1, c.heads + c.kv_heads, c.kv_heads);
  }
};

struct Values {
  at::Tensor out, lse, dq, dk, dv;
};

// [Hq, T, T]: true where a query (row) may not look at a key.
at::Tensor hidden_pairs(const GroupPlan& plan) {
  at::Tensor hidden = at::ones({plan.heads, plan.tokens, plan.tokens}, at::kBool);
  auto pairs = hidden.accessor<bool, 3>();
  for (int64_t h = 0; h < plan.heads; ++h) {
    const std::vector<int64_t>& cut = h < plan.plain_heads ? plan.plain : plan.shifted;
    for (size_t s = 0; s + 1 < cut.size(); ++s) {
      for (int64_t i = cut[s]; i < cut[s + 1]; ++i) {
        for (int64_t j = cut[s]; j <= i; ++j) pairs[h][i][j] = plan.window > 0 && i - j >= plan.window;
      }
    }
  }
  return hidden;
}

// A product in the type of its operands, its sums in float32: what LibTorch computes where the processor has bfloat16
// units. Elsewhere its own takes minutes.
at::Tensor product(const at::Tensor& a, const at::Tensor& b) {
  if (a.element_size() >= 4) return a.matmul(b);
  return a.to(at::kFloat).matmul(b.to(at::kFloat)).to(a.scalar_type());
}

// Softmax attention with the mask written out, gradients by autograd; in the type of the buffer.
Values plain(const Case& c, const at::Tensor& buffer, const at::Tensor& dout) {
  const at::Tensor leaf = buffer.detach().clone().set_requires_grad(true);
  const Stacked x(leaf, c);
  const int64_t ratio = c.heads / c.kv_heads;
  const at::Tensor q = x.q.transpose(0, 1), k = x.k.transpose(0, 1).repeat_interleave(ratio, 0),
                   v = x.v.transpose(0, 1).repeat_interleave(ratio, 0);
  const at::Tensor scores =
      (product(q, k.transpose(1, 2)) / std::sqrt(double(c.head_dim))).masked_fill(hidden_pairs(c.plan()), -INFINITY);
  const at::Tensor out = product(scores.softmax(2), v).transpose(0, 1);
  out.backward(dout.to(buffer.scalar_type()));
  const Stacked grad(leaf.grad(), c);
  return {out.detach(), scores.detach().logsumexp(2), grad.q, grad.k, grad.v};
}

// A backend, or the CPU kernels of one instruction set.
struct Way {
  AttentionBackend backend;
  const cpu::Kernels* kernels = nullptr;
  at::Device device = at::kCPU;
};

const Way kReference = {AttentionBackend::reference}, kSdpa = {AttentionBackend::sdpa};

std::vector<Way> kernels_that_run_here() {
  std::vector<Way> ways;
  for (const cpu::Kernels* kernels : test::kernels_that_run_here()) {
    if (isa_is_limited() && kernels != &cpu_kernels()) continue;  // --isa names the one to test
    ways.push_back({AttentionBackend::cpu, kernels});
  }
  return ways;
}

Values run(const Case& c, const at::Tensor& buffer, const at::Tensor& dout, const Way& way) {
  const at::Tensor there = buffer.to(way.device);
  const Stacked x(there, c), grad(at::full_like(there, NAN), c);
  const GroupPlan plan = c.plan();
  AttentionResult saved;
  if (way.kernels != nullptr) {
    saved.out = at::full(x.q.sizes(), NAN, buffer.options());
    saved.lse = at::full({c.heads, c.documents.back()}, NAN,
                         buffer.options().dtype(buffer.scalar_type() == at::kDouble ? at::kDouble : at::kFloat));
    cpu_attention::forward({x.q, x.k, x.v, saved.out, saved.lse, plan}, *way.kernels);
    cpu_attention::backward({dout, x.q, x.k, x.v, saved.out, saved.lse, grad.q, grad.k, grad.v, plan}, *way.kernels);
  } else {
    saved = attention_forward(x.q, x.k, x.v, plan, way.backend);
    attention_backward(dout.to(way.device), x.q, x.k, x.v, saved, plan, grad.q, grad.k, grad.v, way.backend);
  }
  return {saved.out.cpu(), saved.lse.cpu(), grad.q.cpu(), grad.k.cpu(), grad.v.cpu()};
}

double distance(const at::Tensor& a, const at::Tensor& b) {
  return (a.to(at::kDouble) - b.to(at::kDouble)).norm().item<double>();
}

// Squared norms of one result, added up over several draws: of a few numbers alone the plain operations may happen to hit
// one almost exactly.
struct Squares {
  double ours = 0, other = 0, exact = 0, elements = 0;
  void add(const at::Tensor& o, const at::Tensor& p, const at::Tensor& e) {
    ours += std::pow(distance(o, e), 2);
    other += std::pow(distance(p, e), 2);
    exact += e.square().sum().item<double>();
    elements += double(e.numel());
  }
  // Ours may be off by `factor` times what plain operations are off at the same precision, plus the rounding of a result:
  // `epsilon` of its size, and (for gradients that cancel to zero) `noise` an element.
  void check(const char* what, double factor, double epsilon, double noise) const {
    INFO(what);
    CHECK(std::sqrt(ours) <= factor * std::sqrt(other) + epsilon * std::sqrt(exact) + noise * std::sqrt(elements));
  }
};

// Of one way to compute attention.
struct Errors {
  Squares out, lse, dq, dk, dv;
  double largest_lse = 0;
  void add(const Values& ours, const Values& other, const Values& exact) {
    out.add(ours.out, other.out, exact.out);
    lse.add(ours.lse, other.lse, exact.lse);
    dq.add(ours.dq, other.dq, exact.dq);
    dk.add(ours.dk, other.dk, exact.dk);
    dv.add(ours.dv, other.dv, exact.dv);
    largest_lse = std::max(largest_lse, exact.lse.abs().max().item<double>());
  }
};

struct Inputs {
  at::Tensor buffer, dout;
  Inputs(const Case& c, at::ScalarType type, uint64_t seed) {
    at::manual_seed(seed);
    const int64_t tokens = c.documents.back(), rows = c.heads + 2 * c.kv_heads;
    const at::Tensor wide = at::randn({tokens, rows * c.head_dim}, at::kDouble);
    wide.narrow(1, 0, (c.heads + c.kv_heads) * c.head_dim).mul_(c.spread);
    buffer = wide.to(type);
    dout = at::randn({tokens, c.heads, c.head_dim}, at::kDouble).to(type);
  }
};

// `yardstick`: what ours is held against; null: the plain operations.
void compare(const Case& c, at::ScalarType type, const std::vector<Way>& ways, uint64_t seed,
             const Way* yardstick = nullptr) {
  const double epsilon = type == at::kDouble ? 1e-12 : type == at::kFloat ? 1e-6 : 1.0 / 256;
  const double noise = type == at::kDouble ? 1e-14 : 1e-6;
  const uint64_t draws = c.documents.back() < 64 ? 16 : 2;
  std::vector<Errors> errors(ways.size());
  for (uint64_t draw = 0; draw < draws; ++draw) {
    const Inputs in(c, type, seed + draw);
    const Values exact = plain(c, in.buffer.to(at::kDouble), in.dout);
    const Values other = yardstick == nullptr ? plain(c, in.buffer, in.dout) : run(c, in.buffer, in.dout, *yardstick);
    for (size_t i = 0; i < ways.size(); ++i) errors[i].add(run(c, in.buffer, in.dout, ways[i]), other, exact);
  }
  for (size_t i = 0; i < ways.size(); ++i) {
    INFO(describe(c) << " type " << type << " backend " << to_string(ways[i].backend) << " "
                     << (ways[i].kernels == nullptr ? "" : ways[i].kernels->name) << " seed " << seed);
    // The backward pass starts from the saved log-sum-exp: its own rounding moves every probability by that much.
    const double gradient = epsilon + errors[i].largest_lse * (type == at::kDouble ? 0x1p-52 : 0x1p-23);
    // The plain one keeps its sums in bfloat16, ours must keep them in float32.
    errors[i].out.check("out", 2, epsilon, noise);
    errors[i].lse.check("lse", 2, type == at::kDouble ? 1e-12 : 1e-6, noise);
    errors[i].dq.check("dq", 3, gradient, noise);
    errors[i].dk.check("dk", 3, gradient, noise);
    errors[i].dv.check("dv", 3, gradient, noise);
  }
}

// Lengths around blocks and groups, one token, several documents, grouped heads (also halves that cut a KV
// head).
const std::vector<Case> kCases = {
    {{0, 1}, 0, 1, 1, 16},
    {{0, 1, 2, 5}, 2, 2, 2, 16},
    {{0, 63}, 16, 2, 2, 64},
    {{0, 64}, 16, 4, 4, 64},
    {{0, 65}, 0, 2, 1, 64},
    {{0, 50}, 200, 4, 2, 32},  // shorter than a group
    {{0, 130, 131, 260}, 64, 4, 2, 48},
    {{0, 200}, 64, 8, 2, 16},
    {{0, 190}, 60, 8, 1, 32},
    {{0, 190}, 60, 6, 3, 32},  // the middle KV head has a query head in each half
    {{0, 300}, 100, 3, 3, 64},
    {{0, 257}, 0, 2, 2, 128},
    {{0, 129, 300}, 97, 5, 1, 80},
    {{0, 120}, 40, 4, 4, 24},
    {{0, 513}, 256, 4, 2, 64},
    {{0, 1100}, 0, 2, 1, 32},           // longer than what is packed at once
    {{0, 100}, 40, 2, 2, 64, 0, 12.0},  // scores in the hundreds: one key takes all
};
const std::vector<Case> kWindows = {
    {{0, 100}, 0, 4, 2, 32, 1},  {{0, 200}, 80, 4, 2, 64, 33},  {{0, 150, 300}, 0, 2, 2, 48, 100},
    {{0, 70}, 0, 2, 1, 16, 500}, {{0, 1200}, 0, 1, 1, 32, 600}, {{0, 300}, 0, 2, 2, 64, 64},
};

const at::ScalarType kTypes[] = {at::kDouble, at::kFloat, at::kBFloat16};

}  // namespace

TEST_CASE("attention backends agree with softmax attention written out", "[attention]") {
  const uint64_t seed = std::random_device()();
  std::vector<Way> ways = kernels_that_run_here();
  ways.insert(ways.end(), {kReference, kSdpa});
  for (const at::ScalarType type : kTypes) {
    for (const Case& c : kCases) compare(c, type, ways, seed);
  }
}

TEST_CASE("attention with a sliding window agrees with the mask written out", "[attention]") {
  const uint64_t seed = std::random_device()();
  std::vector<Way> ways = kernels_that_run_here();
  ways.push_back(kReference);
  for (const at::ScalarType type : kTypes) {
    for (const Case& c : kWindows) compare(c, type, ways, seed);
  }
}

// In longlora_ops_tests the kernels run on the host, elsewhere on a GPU if there is one.
TEST_CASE("the CUDA kernels agree with softmax attention written out", "[attention][kernels][gpu]") {
  const Way way{AttentionBackend::cuda, nullptr, LONGLORA_KERNELS_ON_HOST ? at::kCPU : model::open_device("auto")};
  const auto objection =
      cuda_attention::objection(at::empty({1, 1, 64}, at::TensorOptions(way.device).dtype(at::kBFloat16)));
  if (objection != nullptr) {
    WARN("skipped: " << objection);
    return;
  }
  const uint64_t seed = std::random_device()();
  std::vector<Case> cases = kCases;
  cases.insert(cases.end(), kWindows.begin(), kWindows.end());
  for (Case& c : cases) {
    c.head_dim = c.head_dim <= 64 ? 64 : 128;
    if (c.documents.back() > 600) continue;
    for (const at::ScalarType type : {at::kBFloat16, at::kHalf}) compare(c, type, {way}, seed);
  }
}

// With a GPU alone.
TEST_CASE("cuDNN agrees with softmax attention written out", "[attention][gpu]") {
  const at::Device device = model::open_device("auto");
  if (device.is_cpu()) {
    WARN("skipped: no GPU");
    return;
  }
  const uint64_t seed = std::random_device()();
  for (const at::ScalarType type : {at::kBFloat16, at::kHalf}) {
    for (const Case& c : kCases) {
      const at::Tensor q = at::empty({1, 1, c.head_dim}, at::TensorOptions(device).dtype(type));
      if (cudnn::objection(q, c.plan()) == nullptr)
        compare(c, type, {{AttentionBackend::cudnn, nullptr, device}}, seed);
    }
  }
}

TEST_CASE("CPU kernels in bfloat16 are about as exact as LibTorch's flash attention", "[attention]") {
  const uint64_t seed = std::random_device()();
  for (const Case& c : kCases) compare(c, at::kBFloat16, kernels_that_run_here(), seed, &kSdpa);
}

TEST_CASE("attention gives the same bits whatever the number of threads", "[attention]") {
  const Case c{{0, 700, 1000}, 300, 6, 3, 48};
  const Inputs in(c, at::kBFloat16, 7);
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const Values alone = run(c, in.buffer, in.dout, {AttentionBackend::cpu});
  at::set_num_threads(3);
  const Values together = run(c, in.buffer, in.dout, {AttentionBackend::cpu});
  at::set_num_threads(threads);
  CHECK(at::equal(alone.out, together.out));
  CHECK(at::equal(alone.dq, together.dq));
  CHECK(at::equal(alone.dk, together.dk));
  CHECK(at::equal(alone.dv, together.dv));
}

TEST_CASE("an attention backend that cannot do what is asked says so", "[attention]") {
  const Case c{{0, 8}, 0, 2, 2, 16, 4};
  const Stacked x(at::randn({8, 6 * 16}), c);
  CHECK_THROWS_WITH(attention_forward(x.q, x.k, x.v, c.plan(), AttentionBackend::sdpa),
                    Catch::Contains("sliding window"));
  CHECK_THROWS_WITH(attention_forward(x.q, x.k, x.v, GroupPlan::full(std::vector<int64_t>{0, 9}, 2, 2)),
                    Catch::Contains("9 tokens"));
  CHECK_THROWS_WITH(attention_forward(x.q, x.k, x.v, c.plan(), AttentionBackend::cudnn),
                    Catch::Contains("cuDNN's attention runs on CUDA devices"));
  CHECK(parse_backend("sdpa") == AttentionBackend::sdpa);
  CHECK(parse_backend("cudnn") == AttentionBackend::cudnn);
  CHECK_THROWS_WITH(parse_backend("flash"), Catch::Contains("sdpa, cpu, cuda and cudnn"));
}

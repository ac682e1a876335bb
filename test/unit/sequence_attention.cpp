// Attention shared out over ranks against attention on one, values and gradients, and the bytes sent against the plan's.
#include "core/dist/sequence_attention.h"

#include <fmt/ranges.h>

#include <random>

#include "test/unit/ranks.h"

namespace longlora {
namespace {

using ops::AttentionBackend;
using ops::GroupPlan;

struct Case {
  std::vector<int64_t> documents;
  int64_t group, heads, kv_heads, head_dim;  // group 0: full attention

  [[nodiscard]] GroupPlan plan() const {
    return group == 0 ? GroupPlan::full(documents, heads, kv_heads) : GroupPlan::s2(documents, group, heads, kv_heads);
  }
};

struct Inputs {
  at::Tensor q, k, v, dout;
  Inputs(const Case& c, uint64_t seed) {
    const auto generator = at::make_generator<at::CPUGeneratorImpl>(seed);
    const auto draw = [&](int64_t heads) {
      return at::randn({c.documents.back(), heads, c.head_dim}, generator, at::kDouble);
    };
    q = draw(c.heads), k = draw(c.kv_heads), v = draw(c.kv_heads), dout = draw(c.heads);
  }
  [[nodiscard]] Inputs to(at::ScalarType type) const {
    Inputs x = *this;
    for (at::Tensor* t : {&x.q, &x.k, &x.v, &x.dout}) *t = t->to(type);
    return x;
  }
};

struct Values {
  at::Tensor out, lse, dq, dk, dv;
};

Values on_one(const Case& c, const Inputs& x, AttentionBackend backend) {
  const GroupPlan plan = c.plan();
  const auto saved = ops::attention_forward(x.q, x.k, x.v, plan, backend);
  Values y{saved.out, saved.lse, at::empty_like(x.q), at::empty_like(x.k), at::empty_like(x.v)};
  ops::attention_backward(x.dout, x.q, x.k, x.v, saved, plan, y.dq, y.dk, y.dv, backend);
  return y;
}

// One case on the ranks of a job.
struct Shared {
  Case c;
  const Inputs& x;
  AttentionBackend backend;
  Values all;                              // put together from the ranks'
  std::vector<int64_t> forward, backward;  // bytes that every rank sent

  Shared(const Case& of, const Inputs& inputs, int size, AttentionBackend by = AttentionBackend::automatic)
      : c(of), x(inputs), backend(by), forward(static_cast<size_t>(size)), backward(static_cast<size_t>(size)) {
    const auto empty = [](const at::Tensor& like) { return at::full_like(like, NAN); };
    all = {empty(x.q), at::full({c.heads, x.q.size(0)}, NAN, at::kDouble), empty(x.q), empty(x.k), empty(x.v)};
  }

  void on_rank(const Rank& r) {
    const auto plan = dist::plan_sequence(c.plan(), dist::layout_of(c.group > 0), r.rank, r.size);
    std::vector<at::Tensor> rows;
    for (const Range& piece : plan.pieces) rows.push_back(at::arange(piece.begin, piece.end, at::kLong));
    const at::Tensor mine = at::cat(rows);
    const auto part = [&](const at::Tensor& whole) { return whole.index_select(0, mine); };
    const at::Tensor q = part(x.q), k = part(x.k), v = part(x.v), dout = part(x.dout);
    const dist::Traffic& traffic = r.group.traffic(dist::Operation::exchange);
    const int64_t before = traffic.bytes;
    const auto saved = dist::sequence_attention_forward(q, k, v, plan, r.group, backend);
    const int64_t between = traffic.bytes;
    const at::Tensor dq = at::empty_like(q), dk = at::empty_like(k), dv = at::empty_like(v);
    dist::sequence_attention_backward(dout, q, k, v, saved, plan, r.group, dq, dk, dv, backend);
    const auto rank = static_cast<size_t>(r.rank);
    const auto element = static_cast<int64_t>(q.element_size());
    forward[rank] = between - before, backward[rank] = traffic.bytes - between;
    if (forward[rank] != plan.sent_forward(c.head_dim) * element) fail("{} bytes sent forward", forward[rank]);
    if (backward[rank] != plan.sent_backward(c.head_dim) * element) fail("{} bytes sent backward", backward[rank]);
    all.out.index_copy_(0, mine, saved.out);
    all.lse.index_copy_(1, mine, saved.lse.to(at::kDouble));
    all.dq.index_copy_(0, mine, dq);
    all.dk.index_copy_(0, mine, dk);
    all.dv.index_copy_(0, mine, dv);
  }
};

void share_out(std::vector<Shared>& cases, int size) {
  const auto work = [&](Rank r) {
    for (Shared& shared : cases) shared.on_rank(r);
  };
  if (size > 1) return require_no_errors(on_ranks(size, work));
  dist::Job alone;
  work({alone, alone.group(), 0, 1});
}

double distance(const at::Tensor& a, const at::Tensor& b) {
  return (a.to(at::kDouble) - b.to(at::kDouble)).norm().item<double>();
}

std::string describe(const Case& c, int size, uint64_t seed) {
  return fmt::format("documents [{}] group {} heads {}/{} D {} ranks {} seed {}", fmt::join(c.documents, " "), c.group,
                     c.heads, c.kv_heads, c.head_dim, size, seed);
}

const std::vector<Case> kCases = {
    {{0, 64}, 16, 4, 4, 16},             // whole groups a rank
    {{0, 61}, 0, 4, 2, 16},              // full, odd
    {{0, 64}, 64, 8, 1, 16},             // fewer groups than ranks: a ring inside the group
    {{0, 67}, 20, 6, 3, 8},              // the middle KV head has a query head in each half
    {{0, 5, 40, 41, 75}, 12, 8, 2, 16},  // documents
    {{0, 30, 33, 77}, 0, 3, 3, 24},
    {{0, 90}, 200, 5, 1, 16},
    {{0, 9}, 2, 2, 2, 8},
};

}  // namespace

TEST_CASE("attention shared out over ranks is that of one rank, in float64 to the last digits", "[sequence]") {
  const uint64_t seed = std::random_device()();
  std::vector<Inputs> inputs;
  for (const Case& c : kCases) inputs.emplace_back(c, seed);
  for (int size = 1; size <= 4; ++size) {
    std::vector<Shared> cases;
    for (size_t i = 0; i < kCases.size(); ++i) {
      cases.emplace_back(kCases[i], inputs[i], size);
      cases.emplace_back(kCases[i], inputs[i], size, AttentionBackend::reference);
    }
    share_out(cases, size);
    for (const Shared& shared : cases) {
      INFO(describe(shared.c, size, seed) << " backend " << to_string(shared.backend));
      const Values exact = on_one(shared.c, shared.x, AttentionBackend::reference);
      const auto near = [](const at::Tensor& a, const at::Tensor& b) {
        return distance(a, b) <= 1e-13 * (1 + b.norm().item<double>());
      };
      CHECK(near(shared.all.out, exact.out));
      CHECK(near(shared.all.lse, exact.lse));
      CHECK(near(shared.all.dq, exact.dq));
      CHECK(near(shared.all.dk, exact.dk));
      CHECK(near(shared.all.dv, exact.dv));
    }
  }
}

TEST_CASE("attention shared out in bfloat16 is about as exact as LibTorch's on one rank", "[sequence]") {
  const uint64_t seed = std::random_device()();
  std::vector<Inputs> inputs;
  for (const Case& c : kCases) inputs.push_back(Inputs(c, seed).to(at::kBFloat16));
  for (int size = 2; size <= 4; ++size) {
    std::vector<Shared> cases, again;
    for (size_t i = 0; i < kCases.size(); ++i) {
      cases.emplace_back(kCases[i], inputs[i], size);
      again.emplace_back(kCases[i], inputs[i], size);
    }
    share_out(cases, size);
    share_out(again, size);
    for (size_t i = 0; i < kCases.size(); ++i) {
      INFO(describe(kCases[i], size, seed));
      const Values exact = on_one(kCases[i], inputs[i].to(at::kDouble), AttentionBackend::reference),
                   plain = on_one(kCases[i], inputs[i], AttentionBackend::sdpa);
      const Values &ours = cases[i].all, &same = again[i].all;
      CHECK((at::equal(same.out, ours.out) && at::equal(same.dq, ours.dq) && at::equal(same.dk, ours.dk)));
      const auto near = [](const at::Tensor& a, const at::Tensor& other, const at::Tensor& b, double factor) {
        return distance(a, b) <= factor * distance(other, b) + 1e-6 * b.norm().item<double>();
      };
      CHECK(near(ours.out, plain.out, exact.out, 2));
      CHECK(near(ours.lse, plain.lse, exact.lse, 2));
      CHECK(near(ours.dq, plain.dq, exact.dq, 3));
      CHECK(near(ours.dk, plain.dk, exact.dk, 3));
      CHECK(near(ours.dv, plain.dv, exact.dv, 3));
    }
  }
}

// The table of docs/parallel.md: longlora_tests '[traffic]' -s
TEST_CASE("S2-Attn sends less than a tenth of ring attention's bytes, full attention less than all",
          "[sequence][traffic]") {
  constexpr int kRanks = 4;
  const Case full{{0, 2048}, 0, 8, 4, 64}, s2{{0, 2048}, 512, 8, 4, 64};
  const Inputs x = Inputs(full, 1).to(at::kBFloat16);
  std::vector<Shared> cases = {{s2, x, kRanks}, {full, x, kRanks}};
  share_out(cases, kRanks);
  const Shared &in_groups = cases[0], &fully = cases[1];
  // Keys and values of all others pass every rank; backward they do so again, and with them their gradients.
  const int64_t ring = 2 * (kRanks - 1) * (2048 / kRanks) * full.kv_heads * full.head_dim * 2;
  std::string table = "\nrank: S2, full, ring (bytes forward + backward)\n";
  int64_t all = 0;
  for (size_t rank = 0; rank < kRanks; ++rank) {
    table += fmt::format("{}: {} + {}, {} + {}, {} + {}\n", rank, in_groups.forward[rank], in_groups.backward[rank],
                         fully.forward[rank], fully.backward[rank], ring, 2 * ring);
    all += fully.forward[rank] + fully.backward[rank];
  }
  INFO(table);
  CHECK(all <= kRanks * 3 * ring * 3 / 4);
  for (size_t rank = 0; rank < kRanks; ++rank) {
    CHECK(10 * in_groups.forward[rank] <= ring);
    CHECK(10 * in_groups.backward[rank] <= 2 * ring);
    CHECK(fully.forward[rank] <= ring);
    CHECK(fully.backward[rank] <= 2 * ring);
  }
}

}  // namespace longlora

// 1,024 ranks one after the other in this process, over a group that writes down what it is asked for: who has what, who talks to
// whom, and how much of it there is. And what a run of real ranks counts, against the functions behind `longlora plan`.
#include <fmt/format.h>

#include <map>

#include "core/adapt/adapter_model.h"
#include "core/data/batch.h"
#include "core/dist/sequence_attention.h"
#include "core/train/adamw.h"
#include "core/train/sequence_share.h"
#include "core/train/setup.h"
#include "core/train/step_cost.h"
#include "core/train/watcher.h"
#include "core/train/weight_shards.h"
#include "test/unit/ranks.h"
#include "test/unit/recording_group.h"
#include "test/unit/tiny_model.h"

namespace longlora {
namespace {

using dist::Layout;
using dist::SequencePlan;
using ops::GroupPlan;
using train::Gradients;
using train::Shard;

constexpr int kMany = 1024;

GroupPlan row(int64_t tokens, int64_t group, int64_t heads = 32, int64_t kv_heads = 8) {
  const int64_t documents[] = {0, tokens};
  return group > 0 ? GroupPlan::s2(documents, group, heads, kv_heads) : GroupPlan::full(documents, heads, kv_heads);
}

bool same(const std::vector<dist::Keys>& a, const std::vector<dist::Keys>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const dist::Keys& x, const dist::Keys& y) {
    return x.rows == y.rows && x.kv_heads == y.kv_heads && x.slot == y.slot;
  });
}

// Whether the tokens of the ranks' pieces are 0 ... tokens, each once.
bool cover(Layout layout, int64_t tokens, int size) {
  std::vector<Range> all;
  for (int rank = 0; rank < size; ++rank)
    for (const Range& piece : dist::pieces_of(layout, tokens, rank, size)) all.push_back(piece);
  std::ranges::sort(all, {}, &Range::begin);
  int64_t at = 0;
  for (const Range& piece : all) {
    if (piece.begin != at || piece.end <= piece.begin) return false;
    at = piece.end;
  }
  return at == tokens;
}

// Everything that a plan has lists of.
size_t parts(const SequencePlan& plan) {
  size_t n = plan.pieces.size() + plan.queries.size() + plan.lent.size() + plan.steps.size() + plan.local.plain.size() +
             plan.local.shifted.size();
  for (const auto& step : plan.steps) n += step.send.size() + step.receive.size() + step.compute.size();
  return n;
}

model::Config tiny() {
  return test::tiny_config(2);
}

recipe::Recipe recipe_of(const char* mode, int64_t length) {
  recipe::Recipe r;
  r.tune.mode = mode;
  r.model.dtype = "float32";
  r.context.length = length;
  r.memory.recompute = "nothing";
  return r;
}

data::Batch batch_of(int64_t rows, int64_t length) {
  data::Batch batch{.rows = rows, .length = length, .tokens = {}, .targets = {}, .positions = {}, .documents = {0}};
  for (int64_t i = 0; i < rows * length; ++i) {
    batch.tokens.push_back(static_cast<int32_t>(i * 7 % 41));
    batch.targets.push_back(static_cast<int32_t>((i * 7 + 7) % 41));
    batch.positions.push_back(static_cast<int32_t>(i % length));
    if ((i + 1) % length == 0) batch.documents.push_back(i + 1);
  }
  return batch;
}

// A step as a run makes it (core/train/setup.cpp, trainer.cpp), of the model of a recipe.
void make_step(const recipe::Recipe& recipe, Shard shard, dist::Group& group, const data::Batch& batch,
               const model::AttentionPattern& pattern, std::span<const model::Recompute> recompute,
               int64_t micro_batches) {
  const bool full = recipe.tune.mode == "full", split = shard == Shard::model;
  const model::Cut cut = shard == Shard::none ? model::Cut{} : model::Cut{.rank = group.rank(), .ranks = group.size()};
  model::Llama llama(tiny(), at::kFloat, at::kCPU, split);
  llama.set_cut(cut);
  std::unique_ptr<train::WeightShards> weights;
  if (split) weights = std::make_unique<train::WeightShards>(llama, cut, full);
  const auto units = llama.units();
  llama.initialize(1, [&](size_t unit) {
    for (model::Parameter* p : units[unit])
      if (adapt::trains(recipe.tune, p->kind)) p->make_trainable();
    if (split) weights->take(unit);
  });
  adapt::make_trainable(llama, recipe.tune, 1);
  if (split) weights->connect(group);
  train::Trained trained(llama, train::gradients_of(shard, full), group);
  train::AdamW optimizer(trained, recipe.optimizer);
  const train::Watcher watcher(llama, weights.get(), trained);
  for (int64_t micro = 0; micro < micro_batches; ++micro) {
    if (micro + 1 == micro_batches) trained.last_micro_batch();
    (void)llama.forward_backward(batch, pattern, recompute, 0.1, {});
  }
  trained.sum();
  (void)optimizer.step(1e-3);
  trained.spread();
  if (split) weights->refresh();
}

void require_bytes(const dist::Group& group, const train::StepBytes& planned) {
  const auto check = [&](dist::Operation operation, int64_t bytes) {
    const int64_t counted = group.traffic(operation).bytes;
    if (counted != bytes) fail("{}: {} bytes counted, {} planned", dist::to_string(operation), counted, bytes);
  };
  check(dist::Operation::all_reduce, planned.all_reduce);
  check(dist::Operation::reduce_scatter, planned.reduce_scatter);
  check(dist::Operation::all_gather, planned.all_gather);
}

}  // namespace

TEST_CASE("ranks that share a row, up to 1,024: S2-Attn's plan does not grow with them", "[simulation]") {
  const int64_t tokens = 1 << 20, head_dim = 128;
  std::vector<size_t> sizes;
  for (const int size : {8, 64, kMany}) {
    REQUIRE(cover(Layout::contiguous, tokens, size));
    for (const int64_t a_rank : {1, 2}) {  // groups
      const int64_t group = tokens / size / a_rank, halo = group * 8 * head_dim / 2;
      const GroupPlan plan = row(tokens, group);
      SequencePlan left = plan_sequence(plan, Layout::contiguous, 0, size);
      size_t largest = parts(left), all = parts(left);
      bool right = left.sent_forward(head_dim) == halo && left.sent_backward(head_dim) == halo;
      for (int rank = 1; rank < size; ++rank) {
        SequencePlan mine = plan_sequence(plan, Layout::contiguous, rank, size);
        const bool last = rank + 1 == size;
        right = right && mine.steps.size() == 2 && mine.steps[1].from == rank - 1 &&
                same(mine.steps[1].receive, left.steps[1].send) && mine.steps[1].receive.size() == 1 &&
                mine.steps[1].compute.size() == 1 && mine.steps[0].compute.empty() &&
                mine.steps[1].send.size() == (last ? 0 : 1) && mine.sent_forward(head_dim) == (last ? 0 : halo) &&
                mine.sent_backward(head_dim) == (last ? halo : 2 * halo);
        largest = std::max(largest, parts(mine));
        all += parts(mine);
        left = std::move(mine);
      }
      INFO(size << " ranks, " << a_rank << " groups each: " << largest << " parts at most, " << all << " in all");
      CHECK(right);
      CHECK(largest <= 24 + 2 * static_cast<size_t>(a_rank));
      CHECK(all <= static_cast<size_t>(size) * largest);
    }
  }
}

TEST_CASE("full attention of 1,024 ranks: all talk to all once, with the bytes of the closed form", "[simulation]") {
  const int64_t tokens = 1 << 20, head_dim = 128;
  const GroupPlan plan = row(tokens, 0);
  for (const int size : {8, 64, kMany}) {
    REQUIRE(cover(Layout::zigzag, tokens, size));
    std::map<int, SequencePlan> some;
    for (const int rank : {0, 1, size / 2 - 1, size / 2, size - 2, size - 1})
      some.emplace(rank, plan_sequence(plan, Layout::zigzag, rank, size));
    const int64_t chunk = tokens / (2 * size) * 2 * 8 * head_dim;
    for (const auto& [rank, mine] : some) {
      INFO("rank " << rank << " of " << size);
      CHECK(mine.steps.size() == static_cast<size_t>(size));
      CHECK(mine.sent_forward(head_dim) == (size - 1 + rank) * chunk);
      CHECK(mine.sent_backward(head_dim) == 3 * (size - 1) * chunk);
      CHECK(parts(mine) <= static_cast<size_t>(20 + 8 * size));
      for (const auto& [other, theirs] : some) {
        const auto k = static_cast<size_t>((other - rank + size) % size);
        CHECK((mine.steps[k].to == other && theirs.steps[k].from == rank));
        CHECK(same(mine.steps[k].send, theirs.steps[k].receive));
      }
    }
  }
}

TEST_CASE("attention of 1,024 ranks exchanges what their plans say, with these peers", "[simulation]") {
  const int64_t each = 8, tokens = kMany * each, head_dim = 4;
  for (const int64_t group : {each, int64_t{0}}) {
    const GroupPlan batch = row(tokens, group, 4, 2);
    for (int rank = 0; rank<kMany; rank += group> 0 ? 1 : kMany - 1) {
      const SequencePlan plan = plan_sequence(batch, dist::layout_of(group > 0), rank, kMany);
      const at::Tensor q = at::ones({each, 4, head_dim}), k = at::ones({each, 2, head_dim}), v = at::ones_like(k);
      const at::Tensor dq = at::empty_like(q), dk = at::empty_like(k), dv = at::empty_like(v);
      RecordingGroup ranks(rank, kMany);
      const auto backend = ops::AttentionBackend::automatic;
      const auto saved = sequence_attention_forward(q, k, v, plan, ranks, backend);
      const int64_t forward = ranks.traffic(dist::Operation::exchange).bytes;
      const size_t messages = ranks.sent.size();
      sequence_attention_backward(q, q, k, v, saved, plan, ranks, dq, dk, dv, backend);
      const int64_t all = ranks.traffic(dist::Operation::exchange).bytes;
      const bool bytes =
          forward == 4 * plan.sent_forward(head_dim) && all - forward == 4 * plan.sent_backward(head_dim);
      bool peers = true;
      if (group > 0) {
        const int64_t half = each * 2 * head_dim / 2 * 4;
        std::vector<RecordingGroup::Sent> sent, received;
        const RecordingGroup::Sent right{rank + 1, half}, left{rank - 1, half};
        const bool to_right = rank + 1 < kMany, to_left = rank > 0;
        for (int pass = 0; pass < 2; ++pass) {
          if (to_right) sent.push_back(right);
          if (to_left) received.push_back(left);
        }
        if (to_left) sent.push_back(left);  // gradients
        if (to_right) received.push_back(right);
        peers = ranks.sent == sent && ranks.received == received;
      } else {
        peers = messages == kMany - 1;
      }
      if (!bytes || !peers) FAIL("rank " << rank << ", group " << group << ": " << all << " bytes");
    }
  }
}

TEST_CASE("a rank of 1,024 holds its slices and gives the bytes that are planned", "[simulation]") {
  for (const int64_t numel : {12, 492, 20000}) {
    const at::Tensor whole = at::arange(1, numel + 1, at::kFloat);
    std::vector<at::Tensor> slices;
    for (int rank = 0; rank < kMany; ++rank) slices.push_back(model::Cut{rank, kMany}.of(whole));
    const at::Tensor all = at::cat(slices);
    CHECK(at::equal(all.narrow(0, 0, numel), whole));
    CHECK(all.sum().item<double>() == whole.sum().item<double>());
  }
  const data::Batch batch = batch_of(1, 24);
  const std::vector<model::Recompute> policies(2, model::Recompute::nothing);
  for (const char* mode : {"lora", "full"}) {
    recipe::Recipe recipe = recipe_of(mode, 24);
    recipe.batch.sequences = 2 * kMany;  // two micro-batches
    const auto units = train::unit_sizes(tiny(), recipe);
    for (const Shard shard : {Shard::none, Shard::optimizer, Shard::model}) {
      const train::StepShape shape = train::step_shape(tiny(), recipe, {.ranks = kMany, .shard = shard});
      REQUIRE(shape.micro_batches == 2);
      for (const int rank : {0, 1, 31, 511, 1022, 1023}) {
        INFO(mode << ", " << to_string(shard) << ", rank " << rank);
        RecordingGroup group(rank, kMany);
        make_step(recipe, shard, group, batch, {.group = 6}, policies, 2);
        CHECK_NOTHROW(require_bytes(group, train::step_bytes(units, shape)));
      }
    }
  }
}

TEST_CASE("a run of 2 x 2 ranks gives the bytes that longlora plan counts", "[simulation][plan]") {
  constexpr int64_t kLength = 32;
  for (const char* mode : {"lora", "full"}) {
    for (const char* pattern : {"s2", "full"}) {
      for (const Shard shard : {Shard::none, Shard::optimizer, Shard::model}) {
        recipe::Recipe recipe = recipe_of(mode, kLength);
        recipe.attention.pattern = pattern;
        recipe.batch.sequences = 8;
        recipe.batch.micro = 2;
        recipe.parallel.sequence = 2;
        if (shard == Shard::model) recipe.memory.recompute = "everything";
        const train::Spread spread{.ranks = 4, .sequence = 2, .shard = shard};
        const train::MemoryPlan memory = train::plan_memory(tiny(), recipe, spread, int64_t{1} << 40);
        const int64_t group = train::group_of(recipe);
        const train::StepShape shape = train::step_shape(tiny(), recipe, spread);
        const train::StepBytes planned = train::step_bytes(train::unit_sizes(tiny(), recipe), shape);
        const data::Batch rows = batch_of(recipe.batch.micro, kLength);
        INFO(mode << ", " << pattern << ", " << to_string(shard));
        require_no_errors(on_ranks(
            4,
            [&](Rank r) {
              dist::Group& row = r.job.sequence_group();
              const data::Batch mine =
                  data::cut(rows, dist::pieces_of(dist::layout_of(group > 0), rows.size(), row.rank(), row.size()));
              make_step(recipe, shard, r.group, mine, {.group = group, .sequence = &row}, memory.recompute,
                        shape.micro_batches);
              require_bytes(r.group, planned);
              const int64_t counted = row.traffic(dist::Operation::exchange).bytes;
              const int64_t exchanged = train::exchanged_bytes(tiny(), recipe, memory, spread, group, row.rank());
              if (counted != exchanged) fail("{} bytes exchanged, {} planned", counted, exchanged);
            },
            20s, 2));
      }
    }
  }
}

}  // namespace longlora

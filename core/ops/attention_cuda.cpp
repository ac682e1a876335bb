// Attention by the kernels of cuda/ (cuda/attention.h). Which tiles of queries and keys there are follows from the plan alone:
// they are made and uploaded at a plan's first use and stay with it for the other layers.
#include <cmath>

#include "core/ops/attention_backends.h"
#include "core/ops/cuda_call.h"
#include "cuda/attention.h"

namespace longlora::ops::cuda_attention {

// GroupPlan::tiles. `plan` is what they were made for.
struct Tiles {
  GroupPlan plan;
  at::Device device;
  at::Tensor queries, keys;
  cuda::QueryWork query_work;
  cuda::KeyWork key_work;

  [[nodiscard]] bool fit(const GroupPlan& p, const at::Device& d) const {
    return device == d && plan.tokens == p.tokens && plan.heads == p.heads && plan.kv_heads == p.kv_heads &&
           plan.plain_heads == p.plain_heads && plan.window == p.window && plan.plain == p.plain &&
           plan.shifted == p.shifted;
  }
};

namespace {

cuda::AttentionShape shape_of(const at::Tensor& q, const GroupPlan& plan) {
  return {plan.tokens,      plan.heads,
          plan.kv_heads,    plan.plain_heads,
          plan.window,      static_cast<int>(q.size(2)),
          *cuda_element(q), static_cast<float>(1.0 / std::sqrt(static_cast<double>(q.size(2))))};
}

cuda::ConstHeads read(const at::Tensor& x) {
  return {x.const_data_ptr(), x.stride(0), x.stride(1)};
}
cuda::Heads write(const at::Tensor& x) {
  return {x.mutable_data_ptr(), x.stride(0), x.stride(1)};
}

Tiles& tiles_of(const GroupPlan& plan, const at::Device& device) {
  if (plan.tiles == nullptr || !plan.tiles->fit(plan, device)) {
    plan.tiles = nullptr;  // not kept alive by the copy of the plan
    plan.tiles = std::make_shared<Tiles>(Tiles{plan, device, {}, {}, {}, {}});
  }
  return *plan.tiles;
}

const cuda::QueryWork& query_work(const cuda::AttentionShape& shape, Tiles& tiles) {
  if (!tiles.queries.defined()) {
    const cuda::QuerySchedule schedule = cuda::query_schedule(shape, tiles.plan.plain, tiles.plan.shifted);
    tiles.queries = upload<cuda::QueryTile>(schedule.tiles, tiles.device);
    tiles.query_work = {uploaded<cuda::QueryTile>(tiles.queries), static_cast<int64_t>(schedule.tiles.size()),
                        schedule.heads};
  }
  return tiles.query_work;
}

const cuda::KeyWork& key_work(const cuda::AttentionShape& shape, Tiles& tiles) {
  if (!tiles.keys.defined()) {
    const cuda::KeySchedule schedule = cuda::key_schedule(shape, tiles.plan.plain, tiles.plan.shifted);
    tiles.keys = upload<cuda::KeyTile>(schedule.tiles, tiles.device);
    tiles.key_work = {uploaded<cuda::KeyTile>(tiles.keys), static_cast<int64_t>(schedule.tiles.size()), schedule.heads};
  }
  return tiles.key_work;
}

}  // namespace

const char* objection(const at::Tensor& q) {
  if (const char* why = cuda_objection(q)) return why;
  if (q.scalar_type() != at::kBFloat16 && q.scalar_type() != at::kHalf)
    return "the CUDA kernels take bfloat16 and float16";
  if (q.size(2) != 64 && q.size(2) != 128) return "the CUDA kernels take head sizes 64 and 128";
  return nullptr;
}

void forward(const AttentionForward& a) {
  const CudaCall call(a.q);
  const cuda::AttentionShape shape = shape_of(a.q, a.plan);
  const cuda::QueryWork& work = query_work(shape, tiles_of(a.plan, a.q.device()));
  cuda::attention_forward(shape, work, read(a.q), read(a.k), read(a.v), write(a.out), a.lse.mutable_data_ptr<float>(),
                          call.stream);
}

void backward(const AttentionBackward& a) {
  const CudaCall call(a.q);
  const cuda::AttentionShape shape = shape_of(a.q, a.plan);
  Tiles& tiles = tiles_of(a.plan, a.q.device());
  const at::Tensor delta = at::empty_like(a.lse);
  cuda::attention_backward(shape, query_work(shape, tiles), key_work(shape, tiles), read(a.dout), read(a.q), read(a.k),
                           read(a.v), read(a.out), a.lse.const_data_ptr<float>(), delta.mutable_data_ptr<float>(),
                           /*dq_sum=*/nullptr, write(a.dq), write(a.dk), write(a.dv), call.stream);
}

}  // namespace longlora::ops::cuda_attention

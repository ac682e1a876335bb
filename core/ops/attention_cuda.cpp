// Attention by the kernels of cuda/ (cuda/attention.h). Compiled three ways: without them where there is no nvcc, with them
// (LONGLORA_CUDA), and for tests with the same kernels run on the host over CPU tensors (LONGLORA_KERNELS_ON_HOST).
#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <cmath>
#include <cstring>

#include "core/ops/attention_backends.h"
#include "cuda/attention.h"

namespace longlora::ops::cuda_attention {

#if defined(LONGLORA_CUDA) || defined(LONGLORA_KERNELS_ON_HOST)

namespace {

#ifdef LONGLORA_KERNELS_ON_HOST
constexpr c10::DeviceType kDevice = c10::DeviceType::CPU;
#else
constexpr c10::DeviceType kDevice = c10::DeviceType::CUDA;
#endif

cuda::Stream stream_of(const at::Tensor& x) {
  if (x.is_cpu()) return nullptr;
  return static_cast<cuda::Stream>(
      c10::impl::VirtualGuardImpl(x.device().type()).getStream(x.device()).native_handle());
}

cuda::AttentionShape shape_of(const at::Tensor& q, const GroupPlan& plan) {
  return {plan.tokens,
          plan.heads,
          plan.kv_heads,
          plan.plain_heads,
          plan.window,
          static_cast<int>(q.size(2)),
          q.scalar_type() == at::kHalf ? cuda::Element::float16 : cuda::Element::bfloat16,
          static_cast<float>(1.0 / std::sqrt(static_cast<double>(q.size(2))))};
}

cuda::ConstHeads read(const at::Tensor& x) {
  return {x.const_data_ptr(), x.stride(0), x.stride(1)};
}
cuda::Heads write(const at::Tensor& x) {
  return {x.mutable_data_ptr(), x.stride(0), x.stride(1)};
}

// The tiles where the kernels can read them. From pinned memory the copy does not wait for the GPU.
template <class Tile>
at::Tensor upload(const std::vector<Tile>& tiles, const at::Device& device) {
  const auto bytes = static_cast<int64_t>(tiles.size() * sizeof(Tile));
  const at::Tensor host = at::empty({bytes}, at::TensorOptions(at::kByte).pinned_memory(device.is_cuda()));
  std::memcpy(host.mutable_data_ptr(), tiles.data(), static_cast<size_t>(bytes));
  return host.to(device, at::kByte, /*non_blocking=*/true);
}

}  // namespace

const char* objection(const at::Tensor& q) {
  if (q.device().type() != kDevice) return "the CUDA kernels run on a GPU";
  if (q.scalar_type() != at::kBFloat16 && q.scalar_type() != at::kHalf)
    return "the CUDA kernels take bfloat16 and float16";
  if (q.size(2) != 64 && q.size(2) != 128) return "the CUDA kernels take head sizes 64 and 128";
  return nullptr;
}

void forward(const AttentionForward& a) {
  const c10::DeviceGuard guard(a.q.device());
  const cuda::AttentionShape shape = shape_of(a.q, a.plan);
  const cuda::AttentionSchedule schedule = cuda::attention_schedule(shape, a.plan.plain, a.plan.shifted);
  const at::Tensor tiles = upload(schedule.query_tiles, a.q.device());
  const cuda::QueryWork work{static_cast<const cuda::QueryTile*>(tiles.const_data_ptr()),
                             static_cast<int64_t>(schedule.query_tiles.size()), schedule.query_heads};
  cuda::attention_forward(shape, work, read(a.q), read(a.k), read(a.v), write(a.out), a.lse.mutable_data_ptr<float>(),
                          stream_of(a.q));
}

void backward(const AttentionBackward& a) {
  const c10::DeviceGuard guard(a.q.device());
  const cuda::AttentionShape shape = shape_of(a.q, a.plan);
  const cuda::AttentionSchedule schedule = cuda::attention_schedule(shape, a.plan.plain, a.plan.shifted);
  const at::Tensor queries = upload(schedule.query_tiles, a.q.device()),
                   keys = upload(schedule.key_tiles, a.q.device());
  const cuda::QueryWork query_work{static_cast<const cuda::QueryTile*>(queries.const_data_ptr()),
                                   static_cast<int64_t>(schedule.query_tiles.size()), schedule.query_heads};
  const cuda::KeyWork key_work{static_cast<const cuda::KeyTile*>(keys.const_data_ptr()),
                               static_cast<int64_t>(schedule.key_tiles.size()), schedule.key_heads};
  const at::Tensor delta = at::empty_like(a.lse);
  cuda::attention_backward(shape, query_work, key_work, read(a.dout), read(a.q), read(a.k), read(a.v), read(a.out),
                           a.lse.const_data_ptr<float>(), delta.mutable_data_ptr<float>(), /*dq_sum=*/nullptr,
                           write(a.dq), write(a.dk), write(a.dv), stream_of(a.q));
}

#else

const char* objection(const at::Tensor&) {
  return "this program was built without CUDA kernels (there was no nvcc)";
}
void forward(const AttentionForward&) {}
void backward(const AttentionBackward&) {}

#endif

}  // namespace longlora::ops::cuda_attention

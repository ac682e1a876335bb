// One small kernel with every mistake that the host build must catch, chosen by a template argument.
#include <array>
#include <utility>

#include "cuda/device.cuh"
#include "test/kernels/kernels.h"

namespace longlora::cuda::test {
namespace {

constexpr int kThreads = 64;

// in[0..64) goes to shared memory by cp.async (16 threads, 16 bytes each, in two groups) and by plain stores, and comes
// back reversed; a warp sum of ones is multiplied in to have a shuffle.
template <Fault F>
__global__ void reverse_kernel(const float* in, float* out) {
  DYN_SMEM(memory);
  unsigned char* cursor = memory;
  float* plain = smem_take<float>(cursor, kThreads);
  float* copied = smem_take<float>(cursor, F == Fault::too_much_shared ? kThreads + 4 : kThreads);
  STATIC_SMEM(float, tails, kThreads);
  STATIC_SMEM(float, others, kThreads);
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kWarp, back = kThreads - 1 - thread;

  float ones = 1.0f;
  if (F == Fault::lane_outside_mask) {
    ones = __shfl_sync(0x0000ffffu, ones, 0);
  } else if (F == Fault::overlapping_masks) {
    ones = lane < 16 ? __shfl_xor_sync(0x0001ffffu, ones, 1) : __shfl_xor_sync(0xffff8000u, ones, 1);
  } else if (F == Fault::lane_exited) {
    if (lane == 7) return;
    ones = __shfl_sync(kAllLanes, ones, 0);
  } else if (F == Fault::source_outside_mask) {
    if (lane < 16) ones = __shfl_sync(0x0000ffffu, ones, 20);
  } else {
    ones = warp_sum(ones) / kWarp;
  }

  if (F == Fault::early_exit && thread == 5) return;
  const bool first = thread < 8;
  if (first) cp_async16(copied + 4 * thread, in + 4 * thread, true);
  cp_async_commit();
  if (thread >= 8 && thread < 16) cp_async16(copied + 4 * thread, in + 4 * thread, true);
  cp_async_commit();

  if (F != Fault::uninitialised || thread != 3) plain[thread] = in[thread];
  tails[thread] = 1.0f;
  others[thread] = 1.0f;
  if (F == Fault::overrun && thread == 63) plain[thread + 1] = 5.0f;  // into what lies behind, in a red zone
  if (F == Fault::static_overrun && thread == 63) tails[thread + static_cast<int>(in[0])] = 5.0f;
  if (F == Fault::dynamic_overrun && thread == 63) copied[thread + 1] = 5.0f;

  if (F == Fault::wrong_wait) {
    cp_async_wait<1>();
  } else if (F != Fault::no_wait) {
    cp_async_wait<0>();
  }
  if (F == Fault::some_miss_barrier) {
    if (thread < 40) __syncthreads();
  } else if (F == Fault::other_line) {
    if (thread < 32) {
      __syncthreads();
    } else {
      __syncthreads();
    }
  } else if (F != Fault::missing_barrier) {
    __syncthreads();
  }

  if (F == Fault::missing_syncwarp) {
    others[thread] = ones;
    ones = others[thread ^ 1];
  }
  out[thread] = ones * (thread % 2 == 0 ? plain[back] : copied[back]) * tails[back];
}

template <Fault F>
void reverse_launch(const float* in, float* out, Stream stream) {
  launch(reverse_kernel<F>, dim3(1), dim3(kThreads), 2 * kThreads * sizeof(float), stream, in, out);
}

template <int... I>
constexpr auto table(std::integer_sequence<int, I...>) {
  return std::array{&reverse_launch<static_cast<Fault>(I)>...};
}

}  // namespace

void reverse_with(Fault fault, const float* in, float* out, Stream stream) {
  static constexpr auto kLaunches =
      table(std::make_integer_sequence<int, static_cast<int>(Fault::too_much_shared) + 1>());
  kLaunches[static_cast<size_t>(fault)](in, out, stream);
}

}  // namespace longlora::cuda::test

// The one function that needs NCCL's and CUDA's headers: a library of its own (liblonglora_nccl.so, scripts/cmake/Nccl.cmake)
// that core/dist/c10d.cpp loads where there are GPUs, as LibTorch's CUDA library is loaded. So the program starts, and is
// built, without CUDA.
#define USE_C10D_NCCL
#include <c10/cuda/CUDAStream.h>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

// core/ops/cuda_call.cpp, which does without CUDA's headers, takes the one for the other.
static_assert(sizeof(c10::cuda::CUDAStream) == sizeof(c10::Stream) &&
              std::is_trivially_copyable_v<c10::cuda::CUDAStream>);

// NCCL between `size` ranks, each with the current device. The caller owns what is returned, a c10d::Backend.
extern "C" c10d::Backend* longlora_nccl_backend(c10d::Store* store, int rank, int size, int64_t timeout_ms) {
  auto options = c10d::ProcessGroupNCCL::Options::create();
  options->timeout = std::chrono::milliseconds(timeout_ms);
  return c10::make_intrusive<c10d::ProcessGroupNCCL>(
             c10::intrusive_ptr<c10d::Store>::unsafe_reclaim_from_nonowning(store), rank, size, options)
      .release();
}

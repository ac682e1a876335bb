// What core/ops needs to give tensors to the kernels of cuda/. An operation asks cuda_element() first: where that has a value,
// its kernel is called with the tensors' pointers and strides; where not, it goes on with LibTorch's operations or the CPU's
// kernels. All files of core/ops are compiled once; whether there are kernels, and where, is cuda_call.cpp's alone. Whether they
// run on the GPU at hand a trivial kernel says, once (cuda_trial.h).
#pragma once
#include <ATen/ATen.h>
#include <c10/core/DeviceGuard.h>

#include <cstring>
#include <optional>
#include <span>
#include <string_view>

#include "core/ops/cuda_trial.h"
#include "cuda/types.h"

namespace longlora::ops {

// Why this program has no kernels, in CMake's words; empty where it has: there was an nvcc that suits LibTorch when it was built.
[[nodiscard]] std::string_view why_no_cuda_kernels();

// Whether the kernels run here, which the first call finds out on `device`: all others get its answer.
[[nodiscard]] const CudaTrial& cuda_trial(const at::Device& device);

// Why the kernels cannot work on `x` where it lies; null when they can.
[[nodiscard]] const char* cuda_objection(const at::Tensor& x);

// The kernels' element type of `x`, empty when they do not serve it (another device or dtype).
[[nodiscard]] std::optional<cuda::Element> cuda_element(const at::Tensor& x);

// While it lives the device of `x` is the current one. `stream`: its current stream, where LibTorch's operations go too.
struct CudaCall {
  explicit CudaCall(const at::Tensor& x);
  c10::DeviceGuard guard;
  cuda::Stream stream;
};

// A plain array where the kernels can read it, as bytes. From pinned memory the copy does not wait for the GPU.
template <class T>
at::Tensor upload(std::span<const T> values, const at::Device& device) {
  const at::TensorOptions bytes(at::kByte);
  const at::Tensor host = at::empty({static_cast<int64_t>(values.size_bytes())}, bytes.pinned_memory(device.is_cuda()));
  std::memcpy(host.mutable_data_ptr(), values.data(), values.size_bytes());
  return host.to(device, at::kByte, /*non_blocking=*/true);
}
template <class T>
const T* uploaded(const at::Tensor& bytes) {
  return static_cast<const T*>(bytes.const_data_ptr());
}

// Pointers that may be null.
inline const void* read_or_null(const at::Tensor& x) {
  return x.defined() ? x.const_data_ptr() : nullptr;
}
inline void* write_or_null(const at::Tensor& x) {
  return x.defined() ? x.mutable_data_ptr() : nullptr;
}
inline int64_t row_stride(const at::Tensor& x) {
  return x.defined() ? x.stride(0) : 0;
}

}  // namespace longlora::ops

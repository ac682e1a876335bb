// Compiled three ways: where nvcc compiled the kernels (LONGLORA_CUDA) they run on GPUs; in tests they run on the host over
// CPU tensors (LONGLORA_KERNELS_ON_HOST); where there are none, nothing is served and launchers that nobody reaches stand
// in for them.
#include "core/ops/cuda_call.h"

#include <c10/core/impl/VirtualGuardImpl.h>

#if !defined(LONGLORA_CUDA) && !defined(LONGLORA_KERNELS_ON_HOST)
#define LONGLORA_NO_KERNELS
#include "cuda/adamw.h"
#include "cuda/attention.h"
#include "cuda/cross_entropy.h"
#include "cuda/dropout.h"
#include "cuda/embedding.h"
#include "cuda/launch_error.h"
#include "cuda/rmsnorm.h"
#include "cuda/rotary.h"
#include "cuda/swiglu.h"
#endif

namespace longlora::ops {

bool cuda_kernels_built() {
#ifdef LONGLORA_NO_KERNELS
  return false;
#else
  return true;
#endif
}

const char* cuda_objection(const at::Tensor& x) {
#if defined(LONGLORA_KERNELS_ON_HOST)
  return x.is_cpu() ? nullptr : "the CUDA kernels run on the host in this program";
#elif defined(LONGLORA_CUDA)
  return x.is_cuda() ? nullptr : "the CUDA kernels run on a GPU";
#else
  static_cast<void>(x);
  return "this program was built without CUDA kernels (there was no nvcc)";
#endif
}

std::optional<cuda::Element> cuda_element(const at::Tensor& x) {
  if (cuda_objection(x) != nullptr) return std::nullopt;
  switch (x.scalar_type()) {
    case at::kFloat:
      return cuda::Element::float32;
    case at::kBFloat16:
      return cuda::Element::bfloat16;
    case at::kHalf:
      return cuda::Element::float16;
    default:
      return std::nullopt;
  }
}

CudaCall::CudaCall(const at::Tensor& x) : guard(x.device()), stream(nullptr) {
  if (x.is_cpu()) return;  // on the host a launch returns when the kernel is done
  const c10::impl::VirtualGuardImpl device(x.device().type());
  stream = static_cast<cuda::Stream>(device.getStream(x.device()).native_handle());
}

}  // namespace longlora::ops

#ifdef LONGLORA_NO_KERNELS
namespace longlora::cuda {
namespace {
[[noreturn]] void absent() {
  throw LaunchError("this program was built without CUDA kernels");
}
}  // namespace

// clang-format off
void gradient_norm(const AdamWWork&, double, double*, GradientNorm*, Stream) { absent(); }
void adamw(const AdamWWork&, const AdamWStep&, const GradientNorm*, Stream) { absent(); }
void attention_forward(const AttentionShape&, const QueryWork&, const ConstHeads&, const ConstHeads&, const ConstHeads&,
                       const Heads&, float*, Stream) { absent(); }
void attention_backward(const AttentionShape&, const QueryWork&, const KeyWork&, const ConstHeads&, const ConstHeads&,
                        const ConstHeads&, const ConstHeads&, const ConstHeads&, const float*, float*, float*,
                        const Heads&, const Heads&, const Heads&, Stream) { absent(); }
void cross_entropy(const CrossEntropy&, Stream) { absent(); }
void dropout(const Dropout&, Stream) { absent(); }
void embedding_backward(const EmbeddingBackward&, Stream) { absent(); }
int64_t rmsnorm_blocks(int64_t) { absent(); }
void rmsnorm_forward(const RmsNormForward&, Stream) { absent(); }
void rmsnorm_backward(const RmsNormBackward&, Stream) { absent(); }
void rotate_in_place(const Rotary&, Stream) { absent(); }
void swiglu_forward(const SwigluForward&, Stream) { absent(); }
void swiglu_backward_in_place(const SwigluBackward&, Stream) { absent(); }
// clang-format on

}  // namespace longlora::cuda
#endif

// Compiled three ways: where nvcc compiled the kernels they run on GPUs; in tests they run on the host over CPU tensors
// (LONGLORA_KERNELS_ON_HOST); where there are none (LONGLORA_NO_KERNELS is the reason, in CMake's words), nothing is served and
// launchers that nobody reaches stand in for them.
#include "core/ops/cuda_call.h"

#include <c10/core/impl/VirtualGuardImpl.h>
#include <dlfcn.h>

#include "core/base/error.h"

#ifdef LONGLORA_KERNELS_ON_HOST
#undef LONGLORA_NO_KERNELS
#endif
#ifdef LONGLORA_NO_KERNELS
#include "cuda/adamw.h"
#include "cuda/attention.h"
#include "cuda/cast.h"
#include "cuda/cross_entropy.h"
#include "cuda/dropout.h"
#include "cuda/embedding.h"
#include "cuda/launch_error.h"
#include "cuda/rmsnorm.h"
#include "cuda/rotary.h"
#include "cuda/swiglu.h"
#include "cuda/trial.h"
#endif

namespace longlora::ops {

std::string_view why_no_cuda_kernels() {
#ifdef LONGLORA_NO_KERNELS
  return LONGLORA_NO_KERNELS;
#else
  return {};
#endif
}

const CudaTrial& cuda_trial(const at::Device& device) {
  static const CudaTrial trial = try_cuda_kernels(device);
  return trial;
}

const char* cuda_objection(const at::Tensor& x) {
#if defined(LONGLORA_KERNELS_ON_HOST)
  if (!x.is_cpu()) return "the CUDA kernels run on the host in this program";
#elif !defined(LONGLORA_NO_KERNELS)
  if (!x.is_cuda()) return "the CUDA kernels run on a GPU";
#endif
  const CudaTrial& trial = cuda_trial(x.device());
  return trial.objection.empty() ? nullptr : trial.objection.c_str();
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

namespace {

// The runtime's stream behind one of LibTorch's. c10::Stream has it by name from LibTorch 2.11 on only, and c10/cuda's headers
// need CUDA's: so the function of libc10_cuda.so is called that both have, by its symbol. c10::cuda::CUDAStream is a
// c10::Stream and nothing else, which nccl_plugin.cpp holds at compile time.
cuda::Stream native_stream(const c10::Stream& stream) {
  if (stream == c10::Stream(c10::Stream::DEFAULT, stream.device())) return nullptr;  // the runtime's own default stream
  using Native = cuda::Stream(const c10::Stream*);
  static auto* const native = reinterpret_cast<Native*>(dlsym(RTLD_DEFAULT, "_ZNK3c104cuda10CUDAStream6streamEv"));
  if (native == nullptr) fail("this LibTorch has no c10::cuda::CUDAStream::stream; the program knows 2.10 and 2.11");
  return native(&stream);
}

}  // namespace

CudaCall::CudaCall(const at::Tensor& x) : guard(x.device()), stream(nullptr) {
  if (x.is_cpu()) return;  // on the host a launch returns when the kernel is done
  stream = native_stream(c10::impl::VirtualGuardImpl(x.device().type()).getStream(x.device()));
}

}  // namespace longlora::ops

#ifdef LONGLORA_NO_KERNELS
namespace longlora::cuda {
namespace {
[[noreturn]] void absent() {
  throw LaunchError("this program was built without CUDA kernels (" LONGLORA_NO_KERNELS ")");
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
void cast(Element, const void*, Element, void*, int64_t, Stream) { absent(); }
int compiled_with() { return 0; }
void cross_entropy(const CrossEntropy&, Stream) { absent(); }
void dropout(const Dropout&, Stream) { absent(); }
void embedding_backward(const EmbeddingBackward&, Stream) { absent(); }
int64_t rmsnorm_blocks(int64_t) { absent(); }
void rmsnorm_forward(const RmsNormForward&, Stream) { absent(); }
void rmsnorm_backward(const RmsNormBackward&, Stream) { absent(); }
void rotate_in_place(const Rotary&, Stream) { absent(); }
void swiglu_forward(const SwigluForward&, Stream) { absent(); }
void swiglu_backward_in_place(const SwigluBackward&, Stream) { absent(); }
void trial(int32_t*, Stream) { absent(); }
// clang-format on

}  // namespace longlora::cuda
#endif

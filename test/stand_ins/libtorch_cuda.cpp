// Stands in for LibTorch's CUDA library, so that what the program does on a GPU but in its kernels can be seen without one. Nothing
// else registers the dispatch key CUDA in a process that has not loaded the real one. One GPU, whose memory is the machine's:
// any operation is done by the CPU's kernel on the same memory, and a mix of devices is an error, as it is on a GPU. Preloaded,
// it is found in place of the real library by its name.
#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/EmptyTensor.h>
#include <ATen/InferSize.h>
#include <ATen/TensorUtils.h>
#include <ATen/core/CachingHostAllocator.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <cstdlib>
#include <map>

namespace {

constexpr size_t kAlignment = 512;

c10::DataPtr memory(size_t bytes, c10::Device device) {
  void* at = bytes == 0 ? nullptr : std::aligned_alloc(kAlignment, (bytes + kAlignment - 1) / kAlignment * kAlignment);
  return {at, at, &std::free, device};
}

struct Allocator final : c10::DeviceAllocator {
  c10::DataPtr allocate(size_t bytes) override { return memory(bytes, {c10::kCUDA, 0}); }
  c10::DeleterFnPtr raw_deleter() const override { return &std::free; }
  void copy_data(void* to, const void* from, size_t bytes) const override { std::memcpy(to, from, bytes); }
  bool initialized() override { return true; }
  void emptyCache(c10::MempoolId_t) override {}
  void recordStream(const c10::DataPtr&, c10::Stream) override {}
  c10::CachingDeviceAllocator::DeviceStats getDeviceStats(c10::DeviceIndex) override { return {}; }
  void resetAccumulatedStats(c10::DeviceIndex) override {}
  void resetPeakStats(c10::DeviceIndex) override {}
  std::pair<size_t, size_t> getMemoryInfo(c10::DeviceIndex) override { return {size_t{8} << 30, size_t{16} << 30}; }
} allocator;

struct PinnedAllocator final : at::HostAllocator {
  c10::DataPtr allocate(size_t bytes) override { return memory(bytes, c10::kCPU); }
  c10::DeleterFnPtr raw_deleter() const override { return &std::free; }
  void copy_data(void* to, const void* from, size_t bytes) const override { std::memcpy(to, from, bytes); }
  bool record_event(void*, void*, c10::Stream) override { return true; }
  void empty_cache() override {}
  at::HostStats get_stats() override { return {}; }
  void reset_accumulated_stats() override {}
  void reset_peak_stats() override {}
} pinned;

struct Guard final : c10::impl::DeviceGuardImplInterface {
  static constexpr c10::DeviceType static_type = c10::kCUDA;
  c10::DeviceType type() const override { return c10::kCUDA; }
  c10::Device exchangeDevice(c10::Device) const override { return {c10::kCUDA, 0}; }
  c10::Device getDevice() const override { return {c10::kCUDA, 0}; }
  void setDevice(c10::Device) const override {}
  void uncheckedSetDevice(c10::Device) const noexcept override {}
  c10::Stream getStream(c10::Device device) const override { return c10::Stream(c10::Stream::DEFAULT, device); }
  c10::Stream getDefaultStream(c10::Device device) const override { return c10::Stream(c10::Stream::DEFAULT, device); }
  c10::Stream exchangeStream(c10::Stream stream) const override { return stream; }
  c10::DeviceIndex deviceCount() const noexcept override { return 1; }
  void synchronizeDevice(c10::DeviceIndex) const override {}
};
C10_REGISTER_GUARD_IMPL(CUDA, Guard)

struct CUDAHooks final : at::CUDAHooksInterface {  // LibTorch looks for this name
  explicit CUDAHooks(at::CUDAHooksArgs) {}
  void init() const override {}
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasCUDA() const override { return true; }
  bool hasPrimaryContext(at::DeviceIndex) const override { return true; }
  at::DeviceIndex deviceCount() const override { return 1; }
  at::DeviceIndex getCurrentDevice() const override { return 0; }
  void setCurrentDevice(at::DeviceIndex) const override {}
  int getNumGPUs() const override { return 1; }
  c10::Allocator* getPinnedMemoryAllocator() const override { return &pinned; }
  c10::Allocator* getCUDADeviceAllocator() const override { return &allocator; }
  bool isPinnedPtr(const void*) const override { return false; }
  at::Device getDeviceFromPtr(void*) const override { return {at::kCUDA, 0}; }
  const at::Generator& getDefaultGenerator(at::DeviceIndex) const override {
    static const at::Generator generator = at::detail::createCPUGenerator(1);
    return generator;
  }
};
using at::CUDAHooksRegistry;
using at::RegistererCUDAHooksRegistry;
REGISTER_CUDA_HOOKS(CUDAHooks);

// The same memory as the CPU's kernels take it.
at::Tensor on_host(const at::Tensor& x) {
  if (!x.defined() || x.is_cpu()) return x;
  c10::Storage storage(c10::Storage::use_byte_size_t(), x.storage().nbytes(),
                       at::DataPtr(const_cast<void*>(x.storage().data()), at::kCPU));
  at::Tensor view = at::detail::make_tensor<at::TensorImpl>(std::move(storage),
                                                            c10::DispatchKeySet(c10::DispatchKey::CPU), x.dtype());
  view.unsafeGetTensorImpl()->set_sizes_and_strides(x.sizes(), x.strides(), x.storage_offset());
  return view;
}

using Type = std::optional<at::ScalarType>;
using Sizes = c10::SymIntArrayRef;
constexpr c10::DispatchKeySet kKeys(c10::DispatchKey::CUDA);

at::Tensor empty(Sizes sizes, Type type, std::optional<at::Layout>, std::optional<at::Device>, std::optional<bool>,
                 std::optional<at::MemoryFormat> format) {
  return at::detail::empty_generic(C10_AS_INTARRAYREF_SLOW(sizes), &allocator, kKeys, at::dtype_or_default(type),
                                   format);
}
at::Tensor empty_strided(Sizes sizes, Sizes strides, Type type, std::optional<at::Layout>, std::optional<at::Device>,
                         std::optional<bool>) {
  return at::detail::empty_strided_generic(C10_AS_INTARRAYREF_SLOW(sizes), C10_AS_INTARRAYREF_SLOW(strides), &allocator,
                                           kKeys, at::dtype_or_default(type));
}
at::Tensor& copy_(at::Tensor& to, const at::Tensor& from, bool) {
  on_host(to).copy_(on_host(from));
  return to;
}
at::Scalar item(const at::Tensor& x) {
  return on_host(x).item();
}
at::Tensor as_strided(const at::Tensor& x, Sizes sizes, Sizes strides, std::optional<c10::SymInt> offset) {
  auto view =
      at::detail::make_tensor<at::TensorImpl>(c10::TensorImpl::VIEW, c10::Storage(x.storage()), x.key_set(), x.dtype());
  view.unsafeGetTensorImpl()->set_sizes_and_strides(C10_AS_INTARRAYREF_SLOW(sizes), C10_AS_INTARRAYREF_SLOW(strides),
                                                    offset ? offset->expect_int() : x.storage_offset());
  return view;
}
at::Tensor view(const at::Tensor& x, Sizes sizes) {
  const auto inferred = at::infer_size_dv(C10_AS_INTARRAYREF_SLOW(sizes), x.numel());
  const auto strides = at::detail::computeStride(x.sizes(), x.strides(), inferred);
  TORCH_CHECK(strides.has_value(), "view of a tensor that is not contiguous");
  return as_strided(x, c10::fromIntArrayRefSlow(inferred), c10::fromIntArrayRefSlow(*strides), x.storage_offset());
}
at::Tensor reshape_alias(const at::Tensor& x, Sizes sizes, Sizes strides) {
  return as_strided(x, sizes, strides, x.storage_offset());
}
const at::Tensor& resize_(const at::Tensor& x, Sizes sizes, std::optional<at::MemoryFormat>) {
  x.unsafeGetTensorImpl()->set_sizes_contiguous(C10_AS_INTARRAYREF_SLOW(sizes));
  const size_t bytes = static_cast<size_t>(x.numel() + x.storage_offset()) * x.element_size();
  c10::StorageImpl& storage = *x.storage().unsafeGetStorageImpl();
  if (storage.nbytes() < bytes) {
    c10::DataPtr larger = allocator.allocate(bytes);
    if (storage.nbytes() > 0) std::memcpy(larger.get(), storage.data(), storage.nbytes());
    storage.set_data_ptr_noswap(std::move(larger));
    storage.set_nbytes(bytes);
  }
  return x;
}
at::Tensor& set_(at::Tensor& x, at::Storage storage, c10::SymInt offset, Sizes sizes, Sizes strides) {
  x.unsafeGetTensorImpl()->set_storage_keep_dtype(std::move(storage));
  x.unsafeGetTensorImpl()->set_sizes_and_strides(C10_AS_INTARRAYREF_SLOW(sizes), C10_AS_INTARRAYREF_SLOW(strides),
                                                 offset.expect_int());
  return x;
}

// Any other operation. Arguments become host tensors, results tensors of the GPU.
void by_the_cpu(const c10::OperatorHandle& operation, torch::jit::Stack* stack) {
  const auto& schema = operation.schema();
  std::map<at::TensorImpl*, at::Tensor> arguments;  // a host tensor: the one of the GPU that it stands for
  const auto lower = [&](const at::Tensor& x) {
    if (!x.defined()) return x;
    TORCH_CHECK(!x.is_cpu() || x.dim() == 0, schema.name(), ": one argument is on the CPU, others are on cuda:0");
    if (x.is_cpu()) return x;
    at::Tensor host = x.numel() == 0 ? at::empty({0}, x.options().device(at::kCPU)) : on_host(x);
    arguments[host.unsafeGetTensorImpl()] = x;
    return host;
  };
  const auto raise = [&](const at::Tensor& x) {
    if (!x.defined()) return x;
    const auto known = arguments.find(x.unsafeGetTensorImpl());
    at::Tensor to = known != arguments.end() ? known->second
                                             : at::empty_strided(x.sizes(), x.strides(), x.options().device(at::kCUDA));
    if (to.sizes() != x.sizes()) to.resize_(x.sizes());
    if (x.numel() > 0 && x.data_ptr() != to.data_ptr()) on_host(to).copy_(x);
    return to;
  };
  const auto change = [&](size_t count, const auto& tensor) {
    for (size_t i = stack->size() - count; i < stack->size(); ++i) {
      c10::IValue& value = (*stack)[i];
      if (value.isTensor()) {
        value = tensor(value.toTensor());
      } else if (value.isTensorList()) {
        c10::List<at::Tensor> list;
        for (const at::Tensor& x : value.toTensorVector()) list.push_back(tensor(x));
        value = list;
      } else if (value.isDevice()) {
        value = c10::Device(c10::kCPU);
      }
    }
  };
  change(schema.arguments().size(), lower);
  operation.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), stack);
  change(schema.returns().size(), raise);
}

TORCH_LIBRARY_IMPL(_, CUDA, library) {
  library.fallback(torch::CppFunction::makeFromBoxedFunction<&by_the_cpu>());
}
TORCH_LIBRARY_IMPL(aten, CUDA, library) {
  library.impl("empty.memory_format", TORCH_FN(empty));
  library.impl("empty_strided", TORCH_FN(empty_strided));
  library.impl("copy_", TORCH_FN(copy_));
  library.impl("_local_scalar_dense", TORCH_FN(item));
  library.impl("as_strided", TORCH_FN(as_strided));
  library.impl("view", TORCH_FN(view));
  library.impl("_reshape_alias", TORCH_FN(reshape_alias));
  library.impl("resize_", TORCH_FN(resize_));
  library.impl("set_.source_Storage_storage_offset", TORCH_FN(set_));
}

struct Install {
  Install() {
    c10::SetAllocator(c10::kCUDA, &allocator);
    at::setHostAllocator(at::kCUDA, &pinned);
  }
} install;

}  // namespace

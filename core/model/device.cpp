#include "core/model/device.h"

#include <ATen/Context.h>
#include <ATen/DeviceAccelerator.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <dlfcn.h>

#include "core/base/error.h"
#include "core/base/gpu_driver.h"
#include "core/base/log.h"
#include "core/base/memory.h"
#include "core/ops/cpu_kernels.h"
#include "core/ops/cuda_call.h"

namespace longlora::model {

std::string why_no_gpu() {
  const GpuDriver& driver = gpu_driver();
  if (!driver.objection.empty()) return driver.objection;
  // Registers its kernels with the dispatcher as it loads; found by the program's run path. Never unloaded.
  if (dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL) == nullptr) {
    return fmt::format("LibTorch's CUDA library does not load ({}); scripts/setup gets what is missing", dlerror());
  }
  if (at::hasCUDA()) return "";
  const int torch = static_cast<int>(at::detail::getCUDAHooks().versionCUDART());
  if (driver.version >= torch / 1000 * 1000) return "LibTorch finds no usable GPU";
  return fmt::format(
      "LibTorch was built with CUDA {} and the driver is for {}: update the driver, or run scripts/setup --torch "
      "cuda12 and "
      "then scripts/build",
      cuda_version(torch), cuda_version(driver.version));
}

int gpu_number(int local_rank, int visible) {
  return local_rank % visible;
}

at::Device open_device(const std::string& name, int local_rank) {
  if (name != "auto" && name != "cpu" && name != "cuda") usage_error("unknown device '{}': auto, cpu or cuda", name);
  if (name == "cpu") return at::kCPU;
  if (const std::string reason = why_no_gpu(); !reason.empty()) {
    if (name == "auto" && !gpu_driver().there) return at::kCPU;
    usage_error("{}: {}; to run on the CPU say so, by model.device=cpu in a recipe or --device cpu",
                name == "cuda" ? "a GPU was asked for" : "this machine has an NVIDIA driver, but no GPU can be used",
                reason);
  }
  const c10::impl::VirtualGuardImpl gpus(at::kCUDA);
  const at::Device device(at::kCUDA, static_cast<at::DeviceIndex>(gpu_number(local_rank, gpus.deviceCount())));
  gpus.setDevice(device);
  const ops::CudaTrial& trial = ops::cuda_trial(device);
  if (!trial.objection.empty() && local_rank == 0) {
    log::warn(
        "LibTorch's operations are used in place of this program's CUDA kernels, slower and with more memory: {}\n  {}",
        trial.objection, trial.remedy);
  }
  return device;
}

int64_t free_memory(const at::Device& device) {
  if (device.is_cpu()) return available_memory();
  const auto [free, total] = at::accelerator::getMemoryInfo(device.index());
  return static_cast<int64_t>(free);
}

std::string describe_device(const at::Device& device) {
  if (device.is_cpu()) return fmt::format("CPU, {} threads, {}", at::get_num_threads(), ops::describe_cpu_kernels());
  const auto number = static_cast<size_t>(device.index());
  const std::vector<Gpu>& gpus = gpu_driver().gpus;
  return number < gpus.size() ? gpus[number].name : fmt::format("GPU {}", number);
}

}  // namespace longlora::model

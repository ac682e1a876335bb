#include "core/model/device.h"

#include <ATen/Context.h>
#include <ATen/DeviceAccelerator.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <dlfcn.h>

#include <filesystem>

#include "core/base/error.h"
#include "core/base/memory.h"
#include "core/ops/cpu_kernels.h"

namespace longlora::model {

std::string why_no_gpu() {
  if (!std::filesystem::exists("/proc/driver/nvidia/version")) return "no NVIDIA driver is loaded";
  // Registers its kernels with the dispatcher as it loads; found by the program's run path. Never unloaded.
  if (dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL) == nullptr) return dlerror();
  if (!at::hasCUDA()) return "LibTorch finds no usable GPU";
  return "";
}

at::Device open_device(const std::string& name, int index) {
  if (name != "auto" && name != "cpu" && name != "cuda") usage_error("unknown device '{}': auto, cpu or cuda", name);
  if (name == "cpu") return at::kCPU;
  const std::string reason = why_no_gpu();
  if (reason.empty()) {
    const c10::impl::VirtualGuardImpl gpus(at::kCUDA);
    if (index >= gpus.deviceCount()) {
      usage_error(
          "rank {} of this machine has no GPU of its own: there are {}; start fewer ranks, or give model.device=cpu",
          index, static_cast<int>(gpus.deviceCount()));
    }
    const at::Device device(at::kCUDA, static_cast<at::DeviceIndex>(index));
    gpus.setDevice(device);
    return device;
  }
  if (name == "cuda") usage_error("model.device is cuda, but: {}", reason);
  return at::kCPU;
}

int64_t free_memory(const at::Device& device) {
  if (device.is_cpu()) return available_memory();
  const auto [free, total] = at::accelerator::getMemoryInfo(device.index());
  return static_cast<int64_t>(free);
}

std::string describe_device(const at::Device& device) {
  if (device.is_cpu()) return fmt::format("CPU, {} threads, {}", at::get_num_threads(), ops::describe_cpu_kernels());
  return fmt::format("GPU {}", static_cast<int>(device.index()));
}

}  // namespace longlora::model

// The driver is asked through its own library, which is there wherever a driver is, so that a machine whose LibTorch does not
// suit its driver can still be told why.
#include "core/doctor/gpu.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include "core/base/progress.h"
#include "core/doctor/timing.h"
#include "core/model/device.h"
#include "core/ops/cuda_call.h"

namespace longlora::doctor {
namespace {

struct Gpu {
  std::string name;
  int major = 0, minor = 0;  // compute capability
  size_t memory = 0;         // bytes
};

// Of libcuda.so.1, the driver's library (CUDA Driver API): 0 is success.
class Driver {
 public:
  Driver() : library_(dlopen("libcuda.so.1", RTLD_NOW)) {
    if (library_ == nullptr || call<int(unsigned)>("cuInit", 0U) != 0) return;
    call<int(int*)>("cuDriverGetVersion", &version_);
    int count = 0;
    if (call<int(int*)>("cuDeviceGetCount", &count) != 0) return;
    for (int device = 0; device < count; ++device) gpus_.push_back(ask(device));
  }
  [[nodiscard]] bool there() const { return library_ != nullptr; }
  [[nodiscard]] int version() const { return version_; }  // of CUDA: 13000 is 13.0
  [[nodiscard]] const std::vector<Gpu>& gpus() const { return gpus_; }

 private:
  template <class Signature, class... Args>
  int call(const char* name, Args... arguments) {
    auto* function = reinterpret_cast<Signature*>(dlsym(library_, name));
    return function == nullptr ? -1 : function(arguments...);
  }
  Gpu ask(int device) {
    constexpr int kMajor = 75, kMinor = 76;  // CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_...
    Gpu gpu;
    char name[256] = "";
    if (call<int(char*, int, int)>("cuDeviceGetName", name, static_cast<int>(sizeof name), device) == 0)
      gpu.name = name;
    call<int(int*, int, int)>("cuDeviceGetAttribute", &gpu.major, kMajor, device);
    call<int(int*, int, int)>("cuDeviceGetAttribute", &gpu.minor, kMinor, device);
    call<int(size_t*, int)>("cuDeviceTotalMem_v2", &gpu.memory, device);
    return gpu;
  }

  void* library_;
  int version_ = 0;
  std::vector<Gpu> gpus_;
};

void measure(Section& section, int index) {
  const at::Device device(at::kCUDA, static_cast<at::DeviceIndex>(index));
  const double products = product_rate(device, at::kBFloat16), copy = copy_rate(device, int64_t{1} << 30);
  section.fine(fmt::format("GPU {} rates", index),
               fmt::format("{:.0f} TFLOP/s bfloat16 products, {:.2f} TB/s copies", products / 1e12, copy / 1e12));
  section.figures["gpus"][static_cast<size_t>(index)].update(
      {{"bfloat16_flops", products}, {"copy_bytes_per_s", copy}});
}

}  // namespace

Section examine_gpus() {
  Section section{.title = "GPUs", .findings = {}};
  section.figures = {{"gpus", nlohmann::ordered_json::array()}};
  const Driver driver;
  if (!driver.there() || driver.gpus().empty()) {
    const char* why = driver.there() ? "the driver finds none" : "no NVIDIA driver";
    section.fine("GPUs", fmt::format("none ({}); everything runs on the CPU", why));
    return section;
  }
  section.fine("driver", fmt::format("for CUDA {}.{}", driver.version() / 1000, driver.version() % 1000 / 10));
  for (size_t i = 0; i < driver.gpus().size(); ++i) {
    const Gpu& gpu = driver.gpus()[i];
    const std::string name = fmt::format("GPU {}", i);
    const std::string value = fmt::format("{}, {}, compute capability {}.{}", gpu.name,
                                          format_bytes(static_cast<double>(gpu.memory)), gpu.major, gpu.minor);
    if (gpu.major < 8) {
      section.wrong(name, value, "the kernels need compute capability 8.0 (A100) or later; use model.device=cpu here");
    } else {
      section.fine(name, value);
    }
    section.figures["gpus"].push_back({{"name", gpu.name},
                                       {"memory_bytes", gpu.memory},
                                       {"compute_capability", fmt::format("{}.{}", gpu.major, gpu.minor)}});
  }
  if (const std::string reason = model::why_no_gpu(); !reason.empty()) {
    section.wrong("LibTorch", "cannot use the GPU: " + reason,
                  "scripts/setup --torch cuda13 for drivers for CUDA 13 and later, --torch cuda12 for older ones; then "
                  "scripts/build");
    return section;
  }
  if (ops::cuda_kernels_built()) {
    section.fine("kernels", "built for compute capability 8.0 and 9.0a");
  } else {
    section.notice("kernels", "this program was built without its CUDA kernels; LibTorch's are used",
                   "put nvcc 12 or later into the PATH and run scripts/build again");
  }
  for (size_t i = 0; i < driver.gpus().size(); ++i) measure(section, static_cast<int>(i));
  return section;
}

}  // namespace longlora::doctor

#include "core/base/gpu_driver.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <array>
#include <cstdlib>
#include <filesystem>

namespace longlora {
namespace {

// The functions by name; each returns 0 for success.
class Library {
 public:
  Library() : library_(dlopen("libcuda.so.1", RTLD_NOW)) {}
  [[nodiscard]] bool there() const { return library_ != nullptr; }
  template <class... Args>
  int call(const char* name, Args... arguments) const {
    auto* function = reinterpret_cast<int (*)(Args...)>(dlsym(library_, name));
    return function == nullptr ? -1 : function(arguments...);
  }

 private:
  void* library_;  // never unloaded
};

std::string id_of(const Library& driver, int device) {
  std::array<unsigned char, 16> id{};
  // The second version of the function tells the instances of one GPU (MIG) apart; drivers before 11.4 lack it.
  if (driver.call("cuDeviceGetUuid_v2", id.data(), device) != 0 &&
      driver.call("cuDeviceGetUuid", id.data(), device) != 0)
    return "";
  std::string digits;
  for (const unsigned char byte : id) digits += fmt::format("{:02x}", byte);
  return digits;
}

Gpu ask(const Library& driver, int device) {
  constexpr int kMajor = 75, kMinor = 76;  // CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_...
  Gpu gpu;
  std::array<char, 256> name{};
  if (driver.call("cuDeviceGetName", name.data(), static_cast<int>(name.size()), device) == 0) gpu.name = name.data();
  gpu.id = id_of(driver, device);
  driver.call("cuDeviceGetAttribute", &gpu.major, kMajor, device);
  driver.call("cuDeviceGetAttribute", &gpu.minor, kMinor, device);
  size_t memory = 0;
  driver.call("cuDeviceTotalMem_v2", &memory, device);
  gpu.memory = static_cast<int64_t>(memory);
  return gpu;
}

std::string no_gpu() {
  constexpr const char* kVariable = "CUDA_VISIBLE_DEVICES";
  const char* visible = std::getenv(kVariable);
  if (visible == nullptr) return "the driver shows this process no GPU (in a batch job: ask for one)";
  return fmt::format("the driver shows this process no GPU ({} is \"{}\")", kVariable, visible);
}

GpuDriver ask() {
  GpuDriver driver;
  const Library library;
  // Under Windows' subsystem for Linux there is no /proc/driver/nvidia: the driver is behind /dev/dxg.
  driver.there = std::filesystem::exists("/proc/driver/nvidia/version") ||
                 (std::filesystem::exists("/dev/dxg") && library.there());
  if (!library.there()) {
    driver.objection =
        driver.there ? "the driver's library libcuda.so.1 is not there (a container has to be started with its GPUs)"
                     : "no NVIDIA driver is loaded";
    return driver;
  }
  library.call("cuDriverGetVersion", &driver.version);
  int count = 0;
  constexpr int kNoDevice = 100;  // CUDA_ERROR_NO_DEVICE
  const int status = library.call("cuInit", 0U);
  if (status == 0) driver.there = true;
  if (status != 0 && status != kNoDevice) {
    driver.objection = fmt::format("the NVIDIA driver does not start (cuInit: error {})", status);
  } else if (status == kNoDevice || library.call("cuDeviceGetCount", &count) != 0 || count == 0) {
    driver.objection = no_gpu();
  }
  for (int device = 0; device < count; ++device) driver.gpus.push_back(ask(library, device));
  return driver;
}

}  // namespace

const GpuDriver& gpu_driver() {
  static const GpuDriver driver = ask();
  return driver;
}

std::string cuda_version(int version) {
  return fmt::format("{}.{}", version / 1000, version % 1000 / 10);
}

}  // namespace longlora

#include "core/doctor/gpu.h"

#include <fmt/format.h>

#include "core/base/gpu_driver.h"
#include "core/base/progress.h"
#include "core/base/signal.h"
#include "core/model/device.h"
#include "core/ops/cuda_call.h"
#include "core/ops/cuda_trial.h"
#include "core/ops/product_choice.h"
#include "core/ops/timing.h"

namespace longlora::doctor {
namespace {

at::Device gpu(size_t number) {
  return {at::kCUDA, static_cast<at::DeviceIndex>(number)};
}

// The kernels of this program, one of each file. The trivial one first: where that does not run, none does, and the program goes
// on without them; where it does, one that fails ends a run.
void launch_kernels(Section& section, size_t number) {
  const std::string name = fmt::format("GPU {} kernels", number);
  if (const ops::CudaTrial trial = ops::try_cuda_kernels(gpu(number)); !trial.objection.empty()) {
    section.notice(name, fmt::format("none run ({}); LibTorch's operations are used", trial.objection), trial.remedy);
    return;
  }
  std::string failed;
  size_t ran = 0;
  for (const ops::FileTrial& trial : ops::file_trials()) {
    leave_if_stopped();
    const std::string objection = ops::objection_to(trial, gpu(number));
    if (objection.empty()) {
      ++ran;
    } else {
      failed += fmt::format("{}{}: {}", failed.empty() ? "" : "; ", trial.file, objection);
    }
  }
  const std::string count = fmt::format("{} of {} files run", ran, ops::file_trials().size());
  section.figures["gpus"][number]["kernel_files_run"] = ran;
  if (failed.empty()) {
    section.fine(name, count);
  } else {
    section.wrong(
        name, fmt::format("{}; {}", count, failed),
        "build without them: LONGLORA_CMAKE_ARGS=-DLONGLORA_KERNELS=OFF scripts/build; LibTorch's operations are "
        "used then");
  }
}

void measure(Section& section, size_t index) {
  const at::Device device = gpu(index);
  leave_if_stopped();
  const double products = ops::product_rate(device, at::kBFloat16, ops::ProductBackend::native),
               copy = ops::copy_rate(device, int64_t{1} << 30);
  section.fine(fmt::format("GPU {} rates", index),
               fmt::format("{:.0f} TFLOP/s bfloat16 products, {:.2f} TB/s copies", products / 1e12, copy / 1e12));
  section.figures["gpus"][index].update({{"bfloat16_flops", products}, {"copy_bytes_per_s", copy}});
}

}  // namespace

Section examine_gpus() {
  Section section{.title = "GPUs", .findings = {}};
  section.figures = {{"gpus", nlohmann::ordered_json::array()}};
  const GpuDriver& driver = gpu_driver();
  if (!driver.there) {
    section.fine("GPUs", fmt::format("none ({}); everything runs on the CPU", driver.objection));
    return section;
  }
  if (driver.version != 0) section.fine("driver", fmt::format("for CUDA {}", cuda_version(driver.version)));
  if (!driver.objection.empty()) {
    section.notice("GPUs", driver.objection, "use model.device=cpu (--device cpu) here");
    return section;
  }
  for (size_t i = 0; i < driver.gpus.size(); ++i) {
    const Gpu& found = driver.gpus[i];
    section.fine(fmt::format("GPU {}", i),
                 fmt::format("{}, {}, compute capability {}.{}", found.name,
                             format_bytes(static_cast<double>(found.memory)), found.major, found.minor));
    section.figures["gpus"].push_back({{"name", found.name},
                                       {"memory_bytes", found.memory},
                                       {"compute_capability", fmt::format("{}.{}", found.major, found.minor)}});
  }
  if (const std::string reason = model::why_no_gpu(); !reason.empty()) {
    section.wrong("LibTorch", "cannot use the GPU: " + reason,
                  "scripts/setup gets the LibTorch that suits the driver, scripts/build builds over it; until then use "
                  "model.device=cpu (--device cpu)");
    return section;
  }
  for (size_t i = 0; i < driver.gpus.size(); ++i) {
    try {
      launch_kernels(section, i);
      measure(section, i);
    } catch (const Stopped&) {
      throw;
    } catch (const std::exception& error) {  // of the GPU itself: the other sections are still worth saying
      const std::string text = error.what();
      section.wrong(fmt::format("GPU {}", i), "fails: " + text.substr(0, text.find('\n')),
                    "another process may hold its memory, or it needs a reset: nvidia-smi says which");
    }
  }
  return section;
}

}  // namespace longlora::doctor

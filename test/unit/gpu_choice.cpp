// Which GPU a rank takes, and what a user is told whose kernels do not run.
#include <catch2/catch.hpp>

#include "core/base/gpu_driver.h"
#include "core/model/device.h"
#include "core/ops/cuda_trial.h"

namespace longlora {

TEST_CASE("a rank takes the GPU of its number, or of those that it may see", "[gpu]") {
  CHECK(model::gpu_number(0, 8) == 0);
  CHECK(model::gpu_number(7, 8) == 7);
  CHECK(model::gpu_number(5, 1) == 0);  // srun --gpus-per-task=1
  CHECK(model::gpu_number(3, 2) == 1);  // --gpus-per-task=2
}

TEST_CASE("the remedy for kernels that do not run names what does not suit what", "[gpu]") {
  using Catch::Matchers::Contains;
  const Gpu a100{.name = "A100", .id = "", .major = 8, .minor = 0, .memory = 0};
  const Gpu v100{.name = "V100", .id = "", .major = 7, .minor = 0, .memory = 0};
  CHECK_THAT(ops::remedy_for_kernels(13000, 12020, a100),
             Contains("compiled with CUDA 13.0 and the driver is for 12.2") && Contains("--torch cuda12") &&
                 Contains("nvcc 12 in the PATH"));
  CHECK_THAT(ops::remedy_for_kernels(12080, 12020, a100),
             Contains("an nvcc of at most 12.2") && Contains("update the driver"));
  CHECK_THAT(ops::remedy_for_kernels(13000, 13000, v100), Contains("compute capability 8.0") && Contains("has 7.0"));
  CHECK_THAT(ops::remedy_for_kernels(13000, 13000, a100), Contains("longlora doctor"));
}

TEST_CASE("the remedy for a program without kernels suits the reason", "[gpu]") {
  using Catch::Matchers::Contains;
  CHECK_THAT(ops::remedy_for_no_kernels("there is no nvcc 13"), Contains("into the PATH") && Contains("scripts/build"));
  CHECK_THAT(ops::remedy_for_no_kernels("LONGLORA_KERNELS is off"),
             Contains("LONGLORA_KERNELS=ON") && !Contains("nvcc"));
  CHECK_THAT(ops::remedy_for_no_kernels(
                 "/cuda/bin/nvcc fails on cuda/trial.cu (exit status 1): error: unsupported GNU version!"),
             Contains("NVCC_CCBIN") && !Contains("into the PATH"));
  CHECK_THAT(ops::remedy_for_no_kernels("beside /cuda/bin/nvcc there is no libcudart_static.a"),
             Contains("static library"));
}

TEST_CASE("versions of CUDA are written as people write them", "[gpu]") {
  CHECK(cuda_version(13000) == "13.0");
  CHECK(cuda_version(12080) == "12.8");
}

}  // namespace longlora

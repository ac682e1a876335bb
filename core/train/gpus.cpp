#include "core/train/gpus.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "core/base/error.h"
#include "core/base/nearest.h"

namespace longlora::train {
namespace {

constexpr double kTera = 1e12, kGiga = 1e9;

// Matrix products: A100 271 of 312, H100 794 of 989 at the best size (stas00/ml-engineering, compute/accelerator,
// mean of the best sizes); 250 and 700 are what sizes of a model reach. H200 is an H100 with more memory.
// Attention: A100 FlashAttention-2 forward and backward together (Dao-AILab/flash-attention, assets,
// flash2_a100_fwd_bwd_benchmark.png), so that both have its rate; H100 and H200 cuDNN 9.19 on an H200
// (NVIDIA/cudnn-frontend, benchmark/sdpa_benchmark_training, h200_919_only_cudnn), below 2048 tokens FlashAttention-3's
// shape (tritonbench PR 1267: backward 182 at 1024), 512 by the same slope.
// Memory bandwidth and peak rates: data sheets. Links: NVLink 300 and 450 GB/s a direction, of which two thirds and 78 %
// are taken as reached (assumed); one 200 Gbit/s (A100) or 400 Gbit/s (H100, H200) network card a GPU, 90 % of it.
const std::vector<Gpu> kGpus = {
    {"a100-40",
     "A100 40 GB",
     int64_t{39} << 30,
     312 * kTera,
     250 * kTera,
     {{99, 133, 155, 173, 182, 189}, {99, 133, 155, 173, 182, 189}},
     1555 * kGiga,
     200 * kGiga,
     22.5 * kGiga},
    {"a100-80",
     "A100 80 GB",
     int64_t{79} << 30,
     312 * kTera,
     250 * kTera,
     {{99, 133, 155, 173, 182, 189}, {99, 133, 155, 173, 182, 189}},
     2039 * kGiga,
     200 * kGiga,
     22.5 * kGiga},
    {"h100",
     "H100 80 GB",
     int64_t{79} << 30,
     989 * kTera,
     700 * kTera,
     {{240, 360, 484, 591, 644, 673}, {110, 182, 370, 474, 541, 579}},
     3350 * kGiga,
     350 * kGiga,
     45 * kGiga},
    {"h200",
     "H200 141 GB",
     int64_t{139} << 30,
     989 * kTera,
     700 * kTera,
     {{240, 360, 484, 591, 644, 673}, {110, 182, 370, 474, 541, 579}},
     4800 * kGiga,
     350 * kGiga,
     45 * kGiga},
};

}  // namespace

const std::vector<Gpu>& gpus() {
  return kGpus;
}

const Gpu& find_gpu(const std::string& name) {
  std::vector<std::string> names = {"cpu"};  // this machine, which the caller measures
  for (const Gpu& gpu : kGpus) {
    if (name == gpu.name) return gpu;
    names.emplace_back(gpu.name);
  }
  usage_error("--gpu: '{}' is not known{} there are {}", name,
              did_you_mean(name, names).empty() ? ";" : did_you_mean(name, names), fmt::join(names, ", "));
}

double attention_rate(const Gpu& gpu, bool backward, double length) {
  const double* rates = gpu.attention[backward ? 1 : 0];
  const double at = std::clamp(std::log2(std::max(1.0, length) / 512), 0.0, 5.0);
  const auto below = std::min<size_t>(4, static_cast<size_t>(at));
  const double share = at - static_cast<double>(below);
  return kTera * (rates[below] * (1 - share) + rates[below + 1] * share);
}

}  // namespace longlora::train

#include "core/doctor/machine.h"

#include <ATen/Parallel.h>
#include <fcntl.h>
#include <sched.h>
#include <torch/headeronly/version.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <vector>

#include "core/base/error.h"
#include "core/base/file.h"
#include "core/base/memory.h"
#include "core/base/progress.h"
#include "core/base/signal.h"
#include "core/base/version.h"
#include "core/model/compute.h"
#include "core/ops/cpu_kernels.h"
#include "core/ops/timing.h"

namespace longlora::doctor {
namespace {

namespace fs = std::filesystem;

std::string processor_name() {
  std::ifstream in("/proc/cpuinfo");
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with("model name")) return line.substr(std::min(line.size(), line.find(':') + 2));
  }
  return "unknown processor";
}

// Cores that this process may run on.
int usable_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

// Processor time that the control group allows, in cores; 0: no limit.
double core_limit() {
  std::ifstream in("/sys/fs/cgroup/cpu.max");
  std::string quota;
  double period = 0;
  if (!(in >> quota >> period) || quota == "max" || period <= 0) return 0;
  return std::strtod(quota.c_str(), nullptr) / period;
}

double load_average() {
  double load = 0;
  return getloadavg(&load, 1) == 1 ? load : 0;
}

// A file without a name: the system removes it when it is closed, whatever happens.
int open_unnamed(const fs::path& folder) {
  return ::open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
}

// The rates of matrix products, and what they mean for a run.
void add_products(Section& section, const ops::ProductChoice& bfloat16, const ops::ProductChoice& float32,
                  int threads) {
  const bool tiles = bfloat16.backend == ops::ProductBackend::float32_tiles;
  const char* why = ops::cpu_kernels().bfloat16_units ? "" : ": there are no bfloat16 units";
  const std::string value =
      fmt::format("{:.0f} GFLOP/s in bfloat16{}, {:.0f} in float32; model.dtype \"auto\" is {} on this CPU",
                  bfloat16.flops / 1e9, tiles ? fmt::format(" (converted to float32 in tiles{})", why) : "",
                  float32.flops / 1e9, model::name_of(model::faster_dtype(bfloat16, float32)));
  constexpr double kSlow = 8e9;  // of a core; a core with AVX2 alone reaches 30 to 60
  if (std::max(bfloat16.flops, float32.flops) < kSlow * threads) {
    section.notice("products", value,
                   "slow: is the machine shared or throttled, or --isa given? 'longlora plan RECIPE --gpu cpu' says "
                   "how long a run would take here");
  } else {
    section.fine("products", value);
  }
}

// Bytes a second that reach the disk, from up to `bytes` of them and about two seconds; negative: could not be written.
double write_rate(const fs::path& folder, int64_t bytes) {
  const int file = open_unnamed(folder);
  if (file < 0) return -1;
  constexpr double kBudget = 2;  // seconds
  const std::vector<char> block(size_t{1} << 20, 'x');
  const auto start = std::chrono::steady_clock::now();
  bool good = true;
  int64_t done = 0;
  double seconds = 0;
  // Pieces that grow, so that a slow disk ends with a small one.
  while (good && done < bytes && seconds < kBudget && !stop_requested()) {
    for (int64_t end = std::min(bytes, 2 * done + (int64_t{1} << 20)); good && done < end;) {
      const ssize_t wrote = ::write(file, block.data(), block.size());
      good = wrote > 0;
      done += wrote;
    }
    good = good && ::fdatasync(file) == 0;
    seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }
  ::close(file);
  return good ? static_cast<double>(done) / seconds : -1;
}

}  // namespace

Section examine_processor() {
  Section section{.title = "Program and processor", .findings = {}};
  section.fine("program", fmt::format("{}, LibTorch {}", version_line(), TORCH_VERSION));
  const int cores = usable_cores(), threads = at::get_num_threads();
  const double limit = core_limit(), load = load_average();
  section.fine("processor",
               fmt::format("{}, {} cores for this process, {}", processor_name(), cores, ops::describe_cpu_kernels()));
  if (threads > cores || (limit > 0 && threads > limit + 0.5)) {
    section.notice(
        "threads",
        fmt::format("{} threads share {}", threads,
                    limit > 0 && limit < cores ? fmt::format("{:.1f} cores' time (cgroup)", limit)
                                               : fmt::format("{} cores", cores)),
        fmt::format("export OMP_NUM_THREADS={}", static_cast<int>(limit > 0 && limit < cores ? limit : cores)));
  } else {
    section.fine("threads", fmt::format("{}", threads));
  }
  if (load > 0.5 * cores) {
    section.notice("load", fmt::format("{:.1f}: other work runs here", load),
                   "the rates below are lower than the machine's; measure again when it is quiet");
  }
  const ops::ProductChoice bfloat16 = ops::choose_product(at::kBFloat16, at::kCPU);
  leave_if_stopped();
  const ops::ProductChoice float32 = ops::choose_product(at::kFloat, at::kCPU);
  leave_if_stopped();
  const double copy = ops::copy_rate(at::kCPU, int64_t{256} << 20);
  add_products(section, bfloat16, float32, threads);
  section.fine("memory copy", fmt::format("{:.1f} GB/s", copy / 1e9));
  section.figures = {{"cores", cores},
                     {"threads", threads},
                     {"kernels", ops::cpu_kernels().name},
                     {"bfloat16_flops", bfloat16.flops},
                     {"bfloat16_products", ops::to_string(bfloat16.backend)},
                     {"float32_flops", float32.flops},
                     {"copy_bytes_per_s", copy}};
  return section;
}

Section examine_storage(const fs::path& folder) {
  Section section{.title = "Memory and disk", .findings = {}};
  const int64_t memory = available_memory();
  section.fine("memory", fmt::format("{} can be taken", format_bytes(static_cast<double>(memory))));
  std::error_code ec;
  const auto space = fs::space(folder, ec);
  const auto free = ec ? int64_t{0} : static_cast<int64_t>(space.available);
  constexpr int64_t kProbe = int64_t{256} << 20;
  const double rate = free > 2 * kProbe ? write_rate(folder, kProbe) : -1;
  const std::string where = fs::weakly_canonical(folder).string();
  if (free <= 2 * kProbe) {
    section.wrong("disk", fmt::format("{}: {} free", where, format_bytes(static_cast<double>(free))),
                  "a checkpoint needs the size of what is trained three times over; choose another checkpoint.dir");
  } else if (rate < 0) {
    section.notice(
        "disk",
        fmt::format("{}: {} free, the speed could not be measured", where, format_bytes(static_cast<double>(free))),
        "see whether you may write there, or name another folder with --dir");
  } else {
    section.fine("disk", fmt::format("{}: {} free, {:.2f} GB/s written and synced", where,
                                     format_bytes(static_cast<double>(free)), rate / 1e9));
  }
  section.figures = {{"memory_bytes", memory}, {"disk_free_bytes", free}, {"disk_write_bytes_per_s", rate}};
  return section;
}

}  // namespace longlora::doctor

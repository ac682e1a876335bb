#include "core/doctor/links.h"

#include <fmt/format.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "core/base/progress.h"
#include "core/ops/timing.h"

namespace longlora::doctor {
namespace {

struct Expected {
  double rate;       // bytes a second that a rank can send; 0: not known
  std::string what;  // "memory copies, shared by 4 ranks"
};

// Megabits a second of a network interface as the kernel knows it, 0 where it does not.
double interface_speed(const std::string& name) {
  std::ifstream in("/sys/class/net/" + name + "/speed");
  double megabits = 0;
  return in >> megabits && megabits > 0 ? megabits : 0;
}

// The fastest interface, unless one is named (docs/parallel.md).
Expected network() {
  const char* named = std::getenv("GLOO_SOCKET_IFNAME");
  double best = 0;
  std::string which = named != nullptr ? named : "";
  if (named != nullptr) best = interface_speed(which);
  std::error_code ec;
  for (const auto& entry : std::filesystem::directory_iterator("/sys/class/net", ec)) {
    const std::string name = entry.path().filename().string();
    const double speed = interface_speed(name);
    if (named != nullptr || speed <= best) continue;
    best = speed;
    which = name;
  }
  return {best * 1e6 / 8, which};
}

Expected expected(const dist::Launch& launch, const at::Device& device) {
  if (launch.local_size != launch.size) {
    const Expected link = network();
    if (link.rate == 0) return {0, {}};
    return {link.rate / launch.local_size,
            fmt::format("{} at {:.0f} Gbit/s, shared by {} ranks", link.what, link.rate * 8e-9, launch.local_size)};
  }
  if (!device.is_cpu()) return {0, {}};  // NVLink or PCIe: the driver does not say
  // What is sent to a rank on the same machine is copied into the kernel's memory and out of it: two copies, on both sides'
  // cores. A copy's rate counts bytes read and written.
  const double copy = ops::copy_rate(at::kCPU, int64_t{64} << 20) / 2;
  return {copy / 2, "two memory copies"};
}

}  // namespace

Section examine_links(dist::Job& job, const at::Device& device) {
  Section section{.title = fmt::format("Links between {} ranks", job.group().size()), .findings = {}};
  dist::Group& group = job.group();
  const int next = (group.rank() + 1) % group.size(), previous = (group.rank() + group.size() - 1) % group.size();
  const auto ranks = static_cast<double>(group.size());
  Expected limit = expected(job.launch(), device);
  const at::Tensor shared = at::full({1}, limit.rate, at::kDouble);
  group.broadcast(shared, 0);
  limit.rate = *shared.data_ptr<double>();
  section.figures = {{"ranks", group.size()}, {"expected_bytes_per_s", limit.rate}};
  double best = 0;
  int64_t probe = 0;
  for (const int64_t bytes : {int64_t{8}, int64_t{1} << 20, int64_t{64} << 20}) {
    job.begin_part(0, probe++);  // all ranks leave here where one has had a signal
    const at::Tensor mine = at::zeros({bytes / 4}, at::TensorOptions(at::kFloat).device(device)),
                     other = at::empty_like(mine);
    const dist::Message send[] = {{mine, next}}, receive[] = {{other, previous}};
    constexpr int kRounds = 5;
    const auto timed = [&](const std::function<void()>& work) {  // the same number of calls on all ranks
      work();
      ops::wait_for(device);
      group.barrier();
      const auto start = std::chrono::steady_clock::now();
      for (int i = 0; i < kRounds; ++i) work();
      ops::wait_for(device);
      const at::Tensor seconds = at::full(
          {1}, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() / kRounds, at::kDouble);
      group.broadcast(seconds, 0);
      return *seconds.data_ptr<double>();
    };
    const double sum = timed([&] { group.all_reduce(mine); }), message = timed([&] { group.exchange(send, receive); });
    // A sum sends 2 (n - 1) / n of its bytes from every rank, whatever the number of ranks.
    const double sum_rate = 2 * (ranks - 1) / ranks * static_cast<double>(bytes) / sum,
                 message_rate = static_cast<double>(bytes) / message;
    best = std::max({best, sum_rate, message_rate});
    section.fine(format_bytes(static_cast<double>(bytes)),
                 bytes == 8
                     ? fmt::format("sum {:.0f} µs, message {:.0f} µs", 1e6 * sum, 1e6 * message)
                     : fmt::format("sum {:.2f} GB/s, messages {:.2f} GB/s a rank", sum_rate / 1e9, message_rate / 1e9));
    section.figures[fmt::format("{}", bytes)] = {{"all_reduce_s", sum}, {"exchange_s", message}};
  }
  if (limit.rate > 0) {
    const std::string value =
        fmt::format("{:.0f} % of {:.2f} GB/s ({})", 100 * best / limit.rate, limit.rate / 1e9, limit.what);
    if (best < 0.25 * limit.rate) {
      section.notice("of the link", value,
                     job.launch().local_size == job.launch().size
                         ? "are there fewer cores than ranks, or does other work run here?"
                         : "name the interface of the fast network in GLOO_SOCKET_IFNAME");
    } else {
      section.fine("of the link", value);
    }
  }
  return section;
}

}  // namespace longlora::doctor

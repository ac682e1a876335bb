#include "core/ops/timing.h"

#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <chrono>
#include <vector>

namespace longlora::ops {

void wait_for(const at::Device& device) {
  if (!device.is_cpu()) c10::impl::VirtualGuardImpl(device.type()).synchronizeDevice(device.index());
}

double seconds_of(const at::Device& device, const std::function<void()>& work, double budget) {
  constexpr size_t kMost = 50;
  const auto timed = [&] {
    const auto start = std::chrono::steady_clock::now();
    work();
    wait_for(device);
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  const double first = timed();
  if (first > budget) return first;
  std::vector<double> times;
  for (double sum = first; times.empty() || (sum < budget && times.size() < kMost); sum += times.back())
    times.push_back(timed());
  std::nth_element(times.begin(), times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2), times.end());
  return times[times.size() / 2];
}

double copy_rate(const at::Device& device, int64_t bytes) {
  const auto options = at::TensorOptions(at::kByte).device(device);
  const at::Tensor from = at::ones({bytes}, options), to = at::empty({bytes}, options);
  return 2.0 * static_cast<double>(bytes) / seconds_of(device, [&] { to.copy_(from); });
}

}  // namespace longlora::ops

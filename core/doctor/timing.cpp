#include "core/doctor/timing.h"

#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <chrono>
#include <vector>

namespace longlora::doctor {
namespace {

using Clock = std::chrono::steady_clock;

}  // namespace

void wait_for(const at::Device& device) {
  if (!device.is_cpu()) c10::impl::VirtualGuardImpl(device.type()).synchronizeDevice(device.index());
}

double seconds_of(const at::Device& device, const std::function<void()>& work, double budget) {
  constexpr size_t kLeast = 3, kMost = 50;
  work();
  wait_for(device);
  std::vector<double> times;
  double sum = 0;
  while (times.size() < kLeast || (sum < budget && times.size() < kMost)) {
    const auto start = Clock::now();
    work();
    wait_for(device);
    times.push_back(std::chrono::duration<double>(Clock::now() - start).count());
    sum += times.back();
  }
  std::nth_element(times.begin(), times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2), times.end());
  return times[times.size() / 2];
}

double product_rate(const at::Device& device, at::ScalarType type) {
  const int64_t n = device.is_cpu() ? 2048 : 8192;
  const auto options = at::TensorOptions(type).device(device);
  const at::Tensor a = at::randn({n, n}, options), b = at::randn({n, n}, options), out = at::empty({n, n}, options);
  at::Tensor to = out;
  const auto flops = 2.0 * static_cast<double>(n) * static_cast<double>(n) * static_cast<double>(n);
  return flops / seconds_of(device, [&] { at::mm_out(to, a, b); });
}

double copy_rate(const at::Device& device, int64_t bytes) {
  const auto options = at::TensorOptions(at::kByte).device(device);
  const at::Tensor from = at::ones({bytes}, options), to = at::empty({bytes}, options);
  return 2.0 * static_cast<double>(bytes) / seconds_of(device, [&] { to.copy_(from); });
}

}  // namespace longlora::doctor

// How long work takes on a device. Every measurement has a budget: on a slow machine it is one call, not minutes.
#pragma once
#include <ATen/ATen.h>

#include <functional>

namespace longlora::ops {

// Returns when the device has done what it was given.
void wait_for(const at::Device& device);

// Seconds of one call: the median of several, after one to warm up, for about `budget` seconds in all. Where the first call
// alone takes longer than that, its time is the answer. Waits for the device.
[[nodiscard]] double seconds_of(const at::Device& device, const std::function<void()>& work, double budget = 0.3);

// Bytes read and written a second in a copy of `bytes` bytes within the device's memory.
[[nodiscard]] double copy_rate(const at::Device& device, int64_t bytes);

}  // namespace longlora::ops

// How long work takes on a device, and the two rates that bound all others there: of matrix products and of copies.
#pragma once
#include <ATen/ATen.h>

#include <functional>

namespace longlora::doctor {

// Returns when the device has done what it was given.
void wait_for(const at::Device& device);

// Seconds of one call: the median of several, after one to warm up. At least three, more while they take less than
// `budget` seconds together. Waits for the device.
[[nodiscard]] double seconds_of(const at::Device& device, const std::function<void()>& work, double budget = 0.3);

// FLOP/s of a product of [n, n] matrices of `type` into memory that is there.
[[nodiscard]] double product_rate(const at::Device& device, at::ScalarType type);
// Bytes read and written a second in a copy of `bytes` bytes within the device's memory.
[[nodiscard]] double copy_rate(const at::Device& device, int64_t bytes);

}  // namespace longlora::doctor

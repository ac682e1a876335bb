// For the tests of kernels: every order of the lanes, and kernels whose fault may end the process.
#pragma once
#include <cstdint>
#include <functional>
#include <string>

#include "cuda/host/runtime.h"

namespace longlora::cuda::test {

// body() with the lanes forwards, backwards and shuffled.
template <class Body>
void in_every_order(Body&& body) {
  using host::Order;
  for (const Order order : {Order::forward, Order::reverse, Order::random}) {
    host::options() = {};
    host::options().order = order;
    body();
  }
  host::options() = {};
}

// What body() was stopped by, in a process of its own: the text of a KernelError, "sanitizer" where AddressSanitizer or
// UndefinedBehaviorSanitizer ended it, empty when nothing happened.
[[nodiscard]] std::string what_stops(const std::function<void()>& body);

}  // namespace longlora::cuda::test

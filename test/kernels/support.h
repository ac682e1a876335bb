// For the tests of kernels: memory that they reach, every order of the lanes, and kernels whose fault may end the process.
#pragma once
#include <cstdint>
#include <functional>
#include <string>

#include <vector>

#include "cuda/host/runtime.h"

namespace longlora::cuda::test {

// The same tests run over the host build (host/memory.cpp) and on a GPU (gpu/memory.cu).
[[nodiscard]] bool on_gpu();
[[nodiscard]] void* reachable_memory(size_t bytes);  // by the kernels and by us
void free_reachable_memory(void* memory);
void finish();  // waits for the kernels launched so far; throws where one failed

template <class T>
struct Reachable {
  using value_type = T;
  Reachable() = default;
  template <class U>
  Reachable(const Reachable<U>&) {}
  T* allocate(size_t n) { return static_cast<T*>(reachable_memory(n * sizeof(T))); }
  void deallocate(T* memory, size_t) { free_reachable_memory(memory); }
  bool operator==(const Reachable&) const { return true; }
};
template <class T>
using Array = std::vector<T, Reachable<T>>;

// The host build's options are as they were when this goes, also by an exception.
struct OptionsRestored {
  OptionsRestored() = default;
  OptionsRestored(const OptionsRestored&) = delete;
  OptionsRestored& operator=(const OptionsRestored&) = delete;
  ~OptionsRestored() { host::options() = {}; }
};

// body() with the lanes forwards, backwards and shuffled; once on a GPU.
template <class Body>
void in_every_order(Body&& body) {
  using host::Order;
  if (on_gpu()) return body();
  const OptionsRestored restored;
  for (const Order order : {Order::forward, Order::reverse, Order::random}) {
    host::options() = {};
    host::options().order = order;
    body();
  }
}

// What body() was stopped by, in a process of its own: the text of a KernelError, "sanitizer" where AddressSanitizer or
// UndefinedBehaviorSanitizer ended it, empty when nothing happened.
[[nodiscard]] std::string what_stops(const std::function<void()>& body);

}  // namespace longlora::cuda::test

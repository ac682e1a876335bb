#include "core/base/parallel.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace longlora {

void for_each_piece(size_t count, const std::function<void(size_t)>& work) {
  constexpr size_t kThreadsPerCore = 4, kMostThreads = 16;
  std::atomic<size_t> next = 0;
  std::exception_ptr fault;
  std::mutex lock;
  const auto run = [&] {
    try {
      for (size_t piece = next++; piece < count; piece = next++) work(piece);
    } catch (...) {
      next = count;
      const std::lock_guard hold(lock);
      if (!fault) fault = std::current_exception();
    }
  };
  std::vector<std::jthread> threads;
  const size_t cores = std::max<size_t>(1, std::thread::hardware_concurrency());
  for (size_t i = 0; i < std::min({count, kThreadsPerCore * cores, kMostThreads}); ++i) threads.emplace_back(run);
  threads.clear();  // joins them
  if (fault) std::rethrow_exception(fault);
}

}  // namespace longlora

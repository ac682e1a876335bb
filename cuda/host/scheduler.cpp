// Threads as fibers: whose turn it is, barriers, and what is said when nobody can go on.
#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <map>

#include "cuda/host/block.h"
#include "cuda/host/race.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define LONGLORA_ASAN 1
#endif

namespace longlora::cuda::host {

thread_local constinit const Place* place = nullptr;

namespace {

constexpr size_t kStackBytes = 128 * 1024;
constexpr unsigned kMaxThreads = 1024;

uint64_t next_random(uint64_t& state) {  // SplitMix64
  state += 0x9e3779b97f4a7c15ULL;
  uint64_t x = state;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

void start_switch([[maybe_unused]] void** fake_stack, [[maybe_unused]] const void* stack,
                  [[maybe_unused]] size_t bytes) {
#ifdef LONGLORA_ASAN
  __sanitizer_start_switch_fiber(fake_stack, stack, bytes);
#endif
}

void finish_switch([[maybe_unused]] void* fake_stack, [[maybe_unused]] const void** stack,
                   [[maybe_unused]] size_t* bytes) {
#ifdef LONGLORA_ASAN
  __sanitizer_finish_switch_fiber(fake_stack, stack, bytes);
#endif
}

void shuffle_order(Block& b) {
  for (size_t i = b.order.size(); i > 1; --i) std::swap(b.order[i - 1], b.order[next_random(b.random) % i]);
}

// The next thread that can go on, in the order asked for; null when none can or one has failed.
Thread* next_thread(Block& b) {
  if (b.ready == 0 || !b.error.empty()) return nullptr;
  for (;;) {
    if (b.turn == b.order.size()) {
      b.turn = 0;
      if (options().order == Order::random) shuffle_order(b);
    }
    Thread& thread = b.threads[b.order[b.turn++]];
    if (thread.state == State::ready) return &thread;
  }
}

// From the running thread to another, or to the scheduler.
void leave(Block& b, bool for_good) {
  Thread& self = *b.current;
  Thread* next = next_thread(b);
  if (next == &self) return;
  ++statistics().switches;
  b.current = next;
  place = next != nullptr ? &next->place : nullptr;
  void** keep = for_good ? nullptr : &self.fake_stack;
  if (next != nullptr) {
    start_switch(keep, next->stack, kStackBytes);
    switch_context(self.context, next->context);
  } else {
    start_switch(keep, b.scheduler_stack, b.scheduler_stack_bytes);
    switch_context(self.context, b.scheduler);
  }
  finish_switch(self.fake_stack, nullptr, nullptr);
}

void thread_main() {
  Block& b = block();
  // Who switched here may have been the scheduler, whose stack is noted, or another thread.
  const void* from = nullptr;
  size_t from_bytes = 0;
  finish_switch(nullptr, &from, &from_bytes);
  if (b.scheduler_stack == nullptr) b.scheduler_stack = from, b.scheduler_stack_bytes = from_bytes;
  Thread& self = *b.current;
  try {
    b.body(b.argument);
    if (!self.copies.empty()) kernel_error("ends while asynchronous copies that nobody waited for are under way");
    if (const std::string report = race::take_report(); !report.empty()) kernel_error(report);
  } catch (const std::exception& error) {
    b.error = "thread " + std::to_string(self.index) + " " + error.what();
  }
  self.state = State::done;
  --b.ready;
  leave(b, true);  // outside of the handler, whose exception would be lost
}

unsigned char* new_stack() {
  const size_t page = 4096;
  void* memory = mmap(nullptr, kStackBytes + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED || mprotect(memory, page, PROT_NONE) != 0) throw LaunchError("no memory for a stack");
  return static_cast<unsigned char*>(memory) + page;  // below it an overflow ends the program
}

// "threads 0..4, 7" of a sorted list.
std::string ranges(const std::vector<unsigned>& threads) {
  std::string text = threads.size() == 1 ? "thread " : "threads ";
  for (size_t i = 0; i < threads.size();) {
    size_t last = i;
    while (last + 1 < threads.size() && threads[last + 1] == threads[last] + 1) ++last;
    if (i > 0) text += ", ";
    text += std::to_string(threads[i]);
    if (last > i) text += ".." + std::to_string(threads[last]);
    i = last + 1;
  }
  return text;
}

// "threads 0..4 wait at __syncthreads f.cu:27; thread 5 has ended"
std::string who_waits_where(const Block& b) {
  std::map<std::string, std::vector<unsigned>> groups;
  for (unsigned t = 0; t < b.count; ++t) {
    const Thread& thread = b.threads[t];
    std::string where = "ended";
    if (thread.state == State::waiting) {
      where = "wait at " + to_string(thread.spot);
      if (thread.mask != 0) {
        char mask[24];
        std::snprintf(mask, sizeof(mask), " mask %08x", thread.mask);
        where += mask;
      }
    }
    groups[where].push_back(t);
  }
  std::string text;
  for (const auto& [where, threads] : groups) text += (text.empty() ? "" : "; ") + ranges(threads) + " " + where;
  return text;
}

void begin_threads(Block& b, const dim3& grid, const dim3& size, const dim3& index) {
  b.count = size.x * size.y * size.z;
  if (b.threads.size() < b.count) b.threads.resize(b.count);
  b.order.resize(b.count);
  for (unsigned t = 0; t < b.count; ++t) {
    Thread& thread = b.threads[t];
    if (thread.stack == nullptr) thread.stack = new_stack();
    unpoison(thread.stack, kStackBytes);  // what an abandoned thread left
    make_context(thread.context, thread.stack, kStackBytes, thread_main);
    thread.fake_stack = nullptr;
    thread.index = t;
    thread.place = {dim3(t % size.x, t / size.x % size.y, t / size.x / size.y), index, size, grid};
    thread.state = State::ready;
    thread.spot = {};
    thread.mask = 0;
    thread.copies.clear();
    thread.commits = 0;
    b.order[t] = options().order == Order::reverse ? b.count - 1 - t : t;
  }
  if (options().order == Order::random) shuffle_order(b);
  b.turn = 0;
  b.ready = b.count;
  b.error.clear();
  for (Barrier& barrier : b.barriers) barrier.expected = 0, barrier.arrived.clear();
}

std::string name_of(const dim3& index) {
  return "block (" + std::to_string(index.x) + "," + std::to_string(index.y) + "," + std::to_string(index.z) + ")";
}

void run_block(Block& b, const dim3& grid, const dim3& size, const dim3& index) {
  begin_threads(b, grid, size, index);
  begin_shared();
  race::begin_block(b.count);
  ++statistics().blocks;
  b.current = next_thread(b);
  place = &b.current->place;
  start_switch(&b.scheduler_fake_stack, b.current->stack, kStackBytes);
  switch_context(b.scheduler, b.current->context);
  finish_switch(b.scheduler_fake_stack, nullptr, nullptr);
  place = nullptr;
  b.current = nullptr;
  if (b.error.empty()) {
    const bool all_done = std::all_of(b.threads.begin(), b.threads.begin() + b.count,
                                      [](const Thread& thread) { return thread.state == State::done; });
    if (!all_done) b.error = "nobody can go on: " + who_waits_where(b);
  }
  if (!b.error.empty()) throw KernelError(name_of(index) + ", " + b.error);
  end_shared();
  if (!b.error.empty()) throw KernelError(name_of(index) + ", " + b.error);
}

}  // namespace

Options& options() {
  static thread_local Options value;
  return value;
}

Statistics& statistics() {
  static thread_local Statistics value;
  return value;
}

Block& block() {
  static thread_local Block value;
  return value;
}

bool race_mode() {
#ifdef LONGLORA_RACE
  return true;
#else
  return false;
#endif
}

bool address_sanitizer() {
#ifdef LONGLORA_ASAN
  return true;
#else
  return false;
#endif
}

void poison([[maybe_unused]] const void* at, [[maybe_unused]] size_t bytes) {
#ifdef LONGLORA_ASAN
  __asan_poison_memory_region(at, bytes);
#endif
}

void unpoison([[maybe_unused]] const void* at, [[maybe_unused]] size_t bytes) {
#ifdef LONGLORA_ASAN
  __asan_unpoison_memory_region(at, bytes);
#endif
}

bool Spot::operator==(const Spot& other) const {
  return line == other.line && std::strcmp(what, other.what) == 0 && std::strcmp(file, other.file) == 0;
}

std::string to_string(const Spot& spot) {
  const char* slash = std::strrchr(spot.file, '/');
  if (spot.line == 0) return spot.what;
  return std::string(spot.what) + " " + (slash != nullptr ? slash + 1 : spot.file) + ":" + std::to_string(spot.line);
}

void kernel_error(const std::string& message) {
  throw std::runtime_error(message);
}

void make_ready(Thread& thread) {
  thread.state = State::ready;
  thread.mask = 0;
  ++block().ready;
}

void park() {
  Block& b = block();
  b.current->state = State::waiting;
  --b.ready;
  leave(b, false);
}

void run_grid(const dim3& grid, const dim3& size, size_t shared_bytes, void (*body)(void*), void* argument) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  const uint64_t threads = uint64_t{size.x} * size.y * size.z;
  if (threads == 0 || threads > kMaxThreads || size.z > 64) {
    throw LaunchError("a block of " + std::to_string(threads) + " threads");
  }
  if (grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535) throw LaunchError("the grid is too large");
  if (shared_bytes > kSharedLimit) {
    throw LaunchError(std::to_string(shared_bytes) + " bytes of shared memory; sm_80 has " +
                      std::to_string(kSharedLimit) + " for a block");
  }
  Block& b = block();
  if (b.current != nullptr) throw LaunchError("a kernel cannot launch kernels");
  b.body = body;
  b.argument = argument;
  b.dynamic_bytes = shared_bytes;
  b.random = options().seed;
  ++statistics().launches;
  for (unsigned z = 0; z < grid.z; ++z) {
    for (unsigned y = 0; y < grid.y; ++y) {
      for (unsigned x = 0; x < grid.x; ++x) {
        const dim3 index(x, y, z);
        if (!options().only || options().only(index)) run_block(b, grid, size, index);
      }
    }
  }
}

void barrier(unsigned id, unsigned threads, const char* what, const char* file, int line) {
  Block& b = block();
  Thread& self = *b.current;
  if (const std::string report = race::take_report(); !report.empty()) kernel_error(report);
  self.spot = {what, file, line};
  if (id == 0) threads = b.count;
  if (id >= b.barriers.size()) kernel_error("asks for barrier " + std::to_string(id) + " at " + to_string(self.spot));
  if (threads == 0 || threads > b.count || (id != 0 && threads % 32 != 0)) {
    kernel_error("asks for " + std::to_string(threads) + " of " + std::to_string(b.count) + " threads at " +
                 to_string(self.spot));
  }
  Barrier& barrier = b.barriers[id];
  if (barrier.arrived.empty()) barrier.expected = threads;
  if (barrier.expected != threads) {
    kernel_error("asks for " + std::to_string(threads) + " threads at " + to_string(self.spot) + ", thread " +
                 std::to_string(barrier.arrived[0]) + " for " + std::to_string(barrier.expected));
  }
  if (!barrier.arrived.empty() && !(b.threads[barrier.arrived[0]].spot == self.spot)) {
    kernel_error("is at " + to_string(self.spot) + ", but thread " + std::to_string(barrier.arrived[0]) +
                 " waits for it at " + to_string(b.threads[barrier.arrived[0]].spot));
  }
  barrier.arrived.push_back(self.index);
  if (barrier.arrived.size() < threads) return park();
  race::synchronise(barrier.arrived);
  for (const unsigned t : barrier.arrived) {
    if (t != self.index) make_ready(b.threads[t]);
  }
  barrier.arrived.clear();
}

}  // namespace longlora::cuda::host

// The block that runs: its threads, barriers and shared memory. Only the files of this folder include it.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <string>
#include <vector>

#include "cuda/host/context.h"
#include "cuda/host/runtime.h"

namespace longlora::cuda::host {

enum class State : uint8_t { ready, waiting, done };

struct Spot {
  const char* what = "start";
  const char* file = "";
  int line = 0;
  bool operator==(const Spot& other) const;
};
[[nodiscard]] std::string to_string(const Spot& spot);  // "__syncthreads attention.cu:27"

struct Copy {
  void* to;
  const void* from;
  size_t bytes;  // 4 or 16
  bool valid;
  int64_t group;  // the commit that it belongs to
};

struct Thread {
  Context context;
  unsigned char* stack = nullptr;
  void* fake_stack = nullptr;  // AddressSanitizer's
  unsigned index = 0;
  Place place;
  State state = State::done;
  Spot spot;  // where it waits, or met others last
  uint32_t mask = 0;
  void* operand = nullptr;  // of the warp collective it waits in
  std::vector<Copy> copies;
  int64_t commits = 0;
};

struct Barrier {
  unsigned expected = 0;  // 0: nobody waits
  std::vector<unsigned> arrived;
};

struct StaticArray {
  const void* key;  // one address for each array of each kernel
  unsigned char* at;
  size_t bytes;
};
struct Take {
  size_t offset, bytes;
};

constexpr size_t kRedZone = 256;  // keeps what is cut aligned as it was
constexpr unsigned char kPoison = 0xff, kCanary = 0xa5;
constexpr size_t kSharedLimit = 163 * 1024;  // what one block may have on sm_80

struct Block {
  std::vector<Thread> threads;  // never shrinks; the first `count` are of this block
  unsigned count = 0;
  Thread* current = nullptr;
  Context scheduler;
  void* scheduler_fake_stack = nullptr;
  const void* scheduler_stack = nullptr;
  size_t scheduler_stack_bytes = 0;
  std::vector<unsigned> order;
  size_t turn = 0;
  uint64_t random = 0;
  unsigned ready = 0;
  std::array<Barrier, 16> barriers;
  void (*body)(void*) = nullptr;
  void* argument = nullptr;
  std::string error;  // of the thread that failed first

  unsigned char* arena = nullptr;  // static arrays, then dynamic shared memory
  size_t arena_bytes = 0;
  size_t static_used = 0, static_taken = 0;  // with and without red zones
  std::vector<StaticArray> statics;
  size_t dynamic_bytes = 0, dynamic_taken = 0;  // asked at the launch; cut from it
  std::vector<Take> takes;
};
[[nodiscard]] Block& block();  // of this OS thread

// The running thread's turn ends; it comes back when somebody made it ready.
void park();
void make_ready(Thread& thread);
[[noreturn]] void kernel_error(const std::string& message);  // ends the block; the thread's name comes in front

// Shared memory of the block that begins, and what is looked at when it ends.
void begin_shared();
void end_shared();

void poison(const void* at, size_t bytes);  // for AddressSanitizer
void unpoison(const void* at, size_t bytes);

}  // namespace longlora::cuda::host

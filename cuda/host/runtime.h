// Runs kernels on the host: a block's threads are fibers, blocks run one after the other. What a launch leaves out of
// CUDA's rules is an error that says who waits where, so that indexing and synchronisation are tested without a GPU.
// Tests set options() and read statistics(); kernels come here through device.cuh only.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

#include "cuda/host/dim3.h"
#include "cuda/launch_error.h"

namespace longlora::cuda::host {

// In which order a block's threads get their turn. Values alone may depend on it, so tests run all three.
enum class Order { forward, reverse, random };

struct Options {
  Order order = Order::forward;
  uint64_t seed = 1;                            // of the random order
  bool eager_copies = false;                    // cp.async copies when issued, not when waited for
  std::function<bool(const dim3& block)> only;  // the blocks of a grid that run; empty: all of them
};
[[nodiscard]] Options& options();  // of this OS thread

struct Statistics {
  int64_t launches = 0, blocks = 0, switches = 0, mma = 0, ldmatrix = 0;
  int64_t bank_conflicts = 0;  // extra shared memory phases of ldmatrix
};
[[nodiscard]] Statistics& statistics();  // of this OS thread

// What this build checks besides: raw accesses to shared memory for races, all memory for overruns.
[[nodiscard]] bool race_mode();
[[nodiscard]] bool address_sanitizer();

// A kernel broke a rule: a missed barrier, a wrong mask, a race, an overrun. what() says who, where and what.
class KernelError : public LaunchError {
 public:
  using LaunchError::LaunchError;
};

// Runs body(argument) as every thread of every block.
void run_grid(const dim3& grid, const dim3& block, size_t shared_bytes, void (*body)(void*), void* argument);

// For device_host.h: the calling thread's place, its shared memory, and what it does together with others.
struct Place {
  dim3 thread, block, block_size, grid_size;
};
extern thread_local constinit const Place* place;

[[nodiscard]] unsigned char* dynamic_shared();
[[nodiscard]] void* static_shared(const void* key, size_t bytes, size_t alignment);
[[nodiscard]] unsigned char* take_shared(unsigned char*& cursor, size_t bytes);

void barrier(unsigned id, unsigned threads, const char* what, const char* file, int line);

// All lanes of `mask` meet; the last one runs execute(operands by lane, mask).
using Execute = void (*)(void* const* operands, uint32_t mask);
void warp_collective(const char* what, uint32_t mask, void* operand, Execute execute, const char* file, int line);
void warp_barrier(uint32_t mask, const char* file, int line);

enum class Shuffle { index, up, down, exclusive_or };
[[nodiscard]] uint64_t shuffle(Shuffle kind, uint32_t mask, uint64_t value, int lane_or_delta, int width,
                               const char* file, int line);
[[nodiscard]] uint32_t ballot(uint32_t mask, bool predicate, const char* file, int line);

void ldmatrix(uint32_t* r, const void* row, bool transposed, const char* file, int line);
void mma(float* d, const uint32_t* a, const uint32_t* b, const float* c, bool is_bf16, const char* file, int line);

void copy_async(void* to, const void* from, size_t bytes, bool valid, const char* what, const char* file, int line);
void commit_copies();
void wait_copies(int groups_left, const char* file, int line);

// An atomic operation on these bytes follows (before any access to them).
void note_atomic(const void* at, size_t bytes);

}  // namespace longlora::cuda::host

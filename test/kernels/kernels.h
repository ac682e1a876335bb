// The test kernels' launchers. Each takes plain pointers; what they compute is said beside the test that uses them.
#pragma once
#include <cstdint>

#include "cuda/types.h"

namespace longlora::cuda::test {

// sums[b] = sum of x[b * n .. (b + 1) * n), by one block of `threads` each.
void block_sums(const float* x, float* sums, int64_t blocks, int64_t n, unsigned threads, Stream stream);

// c[16][8] = a[16][16] b[16][8], by one warp: ldmatrix, mma, fragments written out. a and c row by row, b column by
// column (b_columns) or row by row (through ldmatrix_x4_trans). layout: right, or a mistake planted.
enum class Layout { right, a_swapped, b_swapped, not_transposed };
template <class T>
void small_product(const T* a, const T* b, float* c, bool b_columns, Layout layout, Stream stream);

// out[i] = 2 in[i] for rows of 8 values moved by cp.async through `stages` buffers; rows past n give zeros.
void copy_pipeline(const float* in, float* out, int64_t n, Stream stream);

// out[lane]: what the lane saw of each shuffle, ballots in the end: [5][32].
void shuffles(uint32_t* out, Stream stream);

// Two halves of a block that meet on named barriers of their own, then an atomic sum: out[0] = sum of thread ids.
void named_barriers(int* out, Stream stream);

// One rule broken each.
enum class Fault {
  none,
  missing_barrier,
  some_miss_barrier,
  early_exit,
  wrong_wait,
  no_wait,
  overrun,
  static_overrun,
  dynamic_overrun,
  lane_outside_mask,
  overlapping_masks,
  lane_exited,
  source_outside_mask,
  other_line,
  uninitialised,
  missing_syncwarp,
  too_much_shared,
};
// A reversal of 64 floats through shared memory in several ways, right when nothing is broken: out[i] = in[63 - i].
void reverse_with(Fault fault, const float* in, float* out, Stream stream);

}  // namespace longlora::cuda::test

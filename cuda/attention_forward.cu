// The forward pass of attention.h. A block has kQueryTile queries of one head in shared memory and goes over the keys of
// their segment from the diagonal back, a tile at a time; the softmax is kept as a running maximum and sum (FlashAttention-2,
// algorithm 1). While the scores of a tile are computed its values are on their way, while they are used the next keys are.
#include <string>

#include "cuda/attention.h"
#include "cuda/attention_launch.cuh"
#include "cuda/attention_tile.cuh"

namespace longlora::cuda {
namespace {

template <class T>
struct ForwardArguments {
  const QueryTile* tiles;
  int64_t heads_per_tile, group, tokens, window;
  float scale;
  const T *q, *k, *v;
  T* out;
  float* lse;
  int64_t q_token, q_head, k_token, k_head, v_token, v_head, out_token, out_head;
};

constexpr int kWarps = 4, kThreads = kWarps * kWarp;
constexpr int kM = static_cast<int>(kQueryTile) / (16 * kWarps);  // blocks of 16 queries a warp
constexpr int kKeys = 64;                                         // keys at a time

template <class T, int D>
constexpr size_t shared_bytes() {
  return (kQueryTile + 2 * kKeys) * D * sizeof(T);
}

template <class T, int D>
__global__ void __launch_bounds__(kThreads, 2) attention_forward_kernel(ForwardArguments<T> a) {
  const QueryTile work = a.tiles[blockIdx.x / a.heads_per_tile];
  const int64_t index = blockIdx.x % a.heads_per_tile, head = work.head + index;
  if (index >= work.heads) return;
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;

  DYN_SMEM(memory);
  unsigned char* cursor = memory;
  const Tile<T, D, kQueryTile> q{smem_take<T>(cursor, kQueryTile * D)};
  const Tile<T, D, kKeys> k{smem_take<T>(cursor, kKeys * D)};
  const Tile<T, D, kKeys> v{smem_take<T>(cursor, kKeys * D)};

  // Keys [first, end) in tiles from `first` on; the last tile may be shorter.
  const int64_t first = a.window > 0 ? larger(work.begin, work.row - a.window + 1) : work.begin;
  int tile = static_cast<int>((work.row_end - first - 1) / kKeys);
  const int64_t last_key = first + static_cast<int64_t>(tile) * kKeys;
  int64_t there = work.row_end - last_key;
  const T* keys = a.k + last_key * a.k_token + head / a.group * a.k_head;
  const T* values = a.v + last_key * a.v_token + head / a.group * a.v_head;
  fetch_rows<kThreads>(q, a.q + work.row * a.q_token + head * a.q_head, a.q_token, work.row_end - work.row);
  fetch_rows<kThreads>(k, keys, a.k_token, there);
  cp_async_commit();

  const int row = warp * kM * 16;  // of the tile, this warp's first
  const bool exists = work.row + row < work.row_end;
  const int window = static_cast<int>(a.window);
  const float scale = a.scale * kLog2E;
  float out[kM][D / 8][4] = {};
  float maximum[kM][2], sum[kM][2];  // of rows lane / 4 and lane / 4 + 8 of each 16; sums of this lane's columns
  UNROLL
  for (int m = 0; m < kM; ++m) {
    maximum[m][0] = maximum[m][1] = -INFINITY;
    sum[m][0] = sum[m][1] = 0.0f;
  }

  // How far the warp's first row is behind the tile's first key.
  int distance = static_cast<int>(work.row + row - last_key);
  for (; tile >= 0; --tile, distance += kKeys) {
    const bool busy = exists && distance > -kM * 16;  // some row of the warp sees a key of the tile
    cp_async_wait<0>();
    __syncthreads();  // keys are there; values are no longer needed
    fetch_rows<kThreads>(v, values, a.v_token, there);
    cp_async_commit();
    values -= kKeys * a.v_token;
    keys -= kKeys * a.k_token;
    there = kKeys;
    float s[kM][kKeys / 8][4] = {};
    if (busy) multiply_rows<kM, kKeys>(s, q, row, k);
    cp_async_wait<0>();
    __syncthreads();  // values are there; keys are no longer needed
    if (tile > 0) fetch_rows<kThreads>(k, keys, a.k_token, kKeys);
    cp_async_commit();
    if (!busy) continue;

    const bool masked = distance < kKeys - 1 || (window > 0 && distance + kM * 16 - 1 >= window);
    UNROLL
    for (int m = 0; m < kM; ++m) {
      UNROLL
      for (int h = 0; h < 2; ++h) {
        if (masked) {  // columns [least, last] are seen
          const int last = distance + m * 16 + h * 8 + lane / 4;
          const int least = window > 0 ? last - window + 1 : 0;
          UNROLL
          for (int n = 0; n < kKeys / 8; ++n) {
            const int column = n * 8 + lane % 4 * 2;
            if (column > last || column < least) s[m][n][2 * h] = -INFINITY;
            if (column + 1 > last || column + 1 < least) s[m][n][2 * h + 1] = -INFINITY;
          }
        }
        float most = maximum[m][h];
        UNROLL
        for (int n = 0; n < kKeys / 8; ++n) most = larger(most, larger(s[m][n][2 * h], s[m][n][2 * h + 1]));
        most = larger(most, __shfl_xor_sync(kAllLanes, most, 1));
        most = larger(most, __shfl_xor_sync(kAllLanes, most, 2));
        // A row may have seen nothing yet. (s - most) * scale, not s * scale - most * scale: exact for large scores.
        const float base = most == -INFINITY ? 0.0f : most;
        const float shrink = fast_exp2((maximum[m][h] - base) * scale);
        maximum[m][h] = most;
        sum[m][h] *= shrink;
        UNROLL
        for (int n = 0; n < kKeys / 8; ++n) {
          UNROLL
          for (int c = 2 * h; c < 2 * h + 2; ++c) {
            s[m][n][c] = fast_exp2((s[m][n][c] - base) * scale);
            sum[m][h] += s[m][n][c];
          }
        }
        UNROLL
        for (int n = 0; n < D / 8; ++n) {
          out[m][n][2 * h] *= shrink;
          out[m][n][2 * h + 1] *= shrink;
        }
      }
    }
    multiply_columns<kM, kKeys>(out, s, v);
  }
  cp_async_wait<0>();

  if (!exists) return;
  const int64_t warp_row = work.row + row;
  UNROLL
  for (int m = 0; m < kM; ++m) {
    UNROLL
    for (int h = 0; h < 2; ++h) {
      float total = sum[m][h];
      total += __shfl_xor_sync(kAllLanes, total, 1);
      total += __shfl_xor_sync(kAllLanes, total, 2);
      const int64_t query = warp_row + m * 16 + h * 8 + lane / 4;
      if (lane % 4 == 0 && query < work.row_end) {
        a.lse[head * a.tokens + query] = maximum[m][h] * a.scale + fast_log2(total) * kLn2;
      }
      sum[m][h] = 1.0f / total;
    }
  }
  store_rows(out, sum, q, row, a.out + warp_row * a.out_token + head * a.out_head, a.out_token,
             work.row_end - warp_row);
}

template <class T, int D>
void forward(const AttentionShape& shape, const QueryWork& work, const ConstHeads& q, const ConstHeads& k,
             const ConstHeads& v, const Heads& out, float* lse, Stream stream) {
  const ForwardArguments<T> arguments{work.tiles,
                                      work.heads,
                                      shape.heads / shape.kv_heads,
                                      shape.tokens,
                                      window_of(shape),
                                      shape.scale,
                                      static_cast<const T*>(q.data),
                                      static_cast<const T*>(k.data),
                                      static_cast<const T*>(v.data),
                                      static_cast<T*>(out.data),
                                      lse,
                                      q.token,
                                      q.head,
                                      k.token,
                                      k.head,
                                      v.token,
                                      v.head,
                                      out.token,
                                      out.head};
  launch(attention_forward_kernel<T, D>, grid_of(work.count * work.heads), dim3(kThreads), shared_bytes<T, D>(), stream,
         arguments);
}

}  // namespace

void attention_forward(const AttentionShape& shape, const QueryWork& work, const ConstHeads& q, const ConstHeads& k,
                       const ConstHeads& v, const Heads& out, float* lse, Stream stream) {
  check_heads("q", q.data, q.token, q.head);
  check_heads("k", k.data, k.token, k.head);
  check_heads("v", v.data, v.token, v.head);
  check_heads("out", out.data, out.token, out.head);
  for_type_and_size(shape, [&](auto type, auto size) {
    forward<decltype(type), decltype(size)::value>(shape, work, q, k, v, out, lse, stream);
  });
}

}  // namespace longlora::cuda

// The backward pass of attention.h (FlashAttention-2, section 3.1, has the formulas):
//
//   delta_i = out_i . dout_i
//   a block holds kKeyTile keys and goes over the queries of all heads that read them:
//     p = exp(scale q.k - lse), ds = p (dout.v - delta);  dv += p^T dout, dk += scale ds^T q
//   deterministic: a block holds kQueryTile queries and goes over their keys, computing p and ds again:  dq += scale ds k
//   else: the block that holds keys adds ds k to dq_sum by atomic operations; dq is dq_sum times scale, rounded.
// Products are transposed where a block holds keys (rows are keys, columns queries), so that p and ds stay in
// the registers in which the tensor cores left them.
#include "cuda/attention.h"
#include "cuda/attention_launch.cuh"
#include "cuda/attention_tile.cuh"

namespace longlora::cuda {
namespace {

template <class T>
struct BackwardArguments {
  const QueryTile* query_tiles;
  const KeyTile* key_tiles;
  int64_t heads_per_query_tile, heads_per_key_tile;
  int64_t group, tokens, heads, plain_heads, window;
  float scale;
  const T *dout, *q, *k, *v, *out;
  const float* lse;
  float* delta;
  float* dq_sum;  // [tokens, heads, D]
  T *dq, *dk, *dv;
  int64_t dout_token, dout_head, q_token, q_head, k_token, k_head, v_token, v_head, out_token, out_head;
  int64_t dq_token, dq_head, dk_token, dk_head, dv_token, dv_head;
};

constexpr int kWarps = 8, kThreads = kWarps * kWarp;
static_assert(kWarps * 16 == kKeyTile && kWarps * 16 == kQueryTile);
constexpr int kRows = 64;  // queries at a time, where a block holds keys
constexpr int kKeys = 64;  // keys at a time, where a block holds queries

// A warp for each row of out and dout.
template <class T, int D>
__global__ void __launch_bounds__(kThreads) delta_kernel(BackwardArguments<T> a) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  if (row >= a.tokens * a.heads) return;
  const int64_t token = row / a.heads, head = row % a.heads;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const uint32_t* out = reinterpret_cast<const uint32_t*>(a.out + token * a.out_token + head * a.out_head);
  const uint32_t* dout = reinterpret_cast<const uint32_t*>(a.dout + token * a.dout_token + head * a.dout_head);
  float sum = 0.0f;
  UNROLL
  for (int i = 0; i < D / 64; ++i) {
    const float2 x = unpack2<T>(out[i * kWarp + lane]), y = unpack2<T>(dout[i * kWarp + lane]);
    sum += x.x * y.x + x.y * y.y;
  }
  sum = warp_sum(sum);
  if (lane == 0) a.delta[head * a.tokens + token] = sum;
}

// What arrives together: queries, their dout, lse and delta.
template <class T, int D>
struct Stage {
  Tile<T, D, kRows> q, dout;
  float *lse, *delta;
};
template <class T, int D>
DEVICE Stage<T, D> take_stage(unsigned char*& cursor) {
  return {{smem_take<T>(cursor, kRows * D)},
          {smem_take<T>(cursor, kRows * D)},
          smem_take<float>(cursor, kRows),
          smem_take<float>(cursor, kRows)};
}

// Member by member, so that it stays in registers.
template <class T, int D>
DEVICE Stage<T, D> choose(bool first, const Stage<T, D>& a, const Stage<T, D>& b) {
  return {{first ? a.q.data : b.q.data},
          {first ? a.dout.data : b.dout.data},
          first ? a.lse : b.lse,
          first ? a.delta : b.delta};
}

template <class T, int D, bool Atomic>
constexpr size_t key_shared_bytes() {
  return 2 * kKeyTile * D * sizeof(T) + 4 * kRows * D * sizeof(T) + 4 * kRows * sizeof(float) +
         (Atomic ? kKeyTile * kRows * sizeof(T) : 0);
}

// dq_sum[rows] += ds^T[keys][rows]^T k[keys][D]: a warp has 16 of the rows and half of the columns.
template <class T, int D>
DEVICE void add_query_gradient(const Tile<T, kRows, kKeyTile>& ds, const Tile<T, D, kKeyTile>& k, float* dq_sum,
                               int64_t stride, int rows) {
  static_assert(kWarps == 8 && kRows == 64);
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const int row = warp / 2 * 16, column = warp % 2 * (D / 2);
  if (row >= rows) return;
  float sum[D / 16][4] = {};
  multiply_transposed<D / 2>(sum, ds, row, k, column);
  UNROLL
  for (int h = 0; h < 2; ++h) {
    const int mine = row + h * 8 + lane / 4;
    float* to = dq_sum + mine * stride + column + lane % 4 * 2;
    if (mine >= rows) continue;
    UNROLL
    for (int n = 0; n < D / 16; ++n) {
      atomicAdd(to + n * 8, sum[n][2 * h]);
      atomicAdd(to + n * 8 + 1, sum[n][2 * h + 1]);
    }
  }
}

template <class T, int D, bool Atomic>
__global__ void __launch_bounds__(kThreads, 1) key_value_gradient_kernel(BackwardArguments<T> a) {
  const KeyTile work = a.key_tiles[blockIdx.x / a.heads_per_key_tile];
  const int64_t index = blockIdx.x % a.heads_per_key_tile, kv_head = work.kv_head + index;
  if (index >= work.kv_heads) return;
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kWarp, warp = thread / kWarp;

  DYN_SMEM(memory);
  unsigned char* cursor = memory;
  const Tile<T, D, kKeyTile> k{smem_take<T>(cursor, kKeyTile * D)}, v{smem_take<T>(cursor, kKeyTile * D)};
  const Stage<T, D> even = take_stage<T, D>(cursor), odd = take_stage<T, D>(cursor);
  const Tile<T, kRows, kKeyTile> ds_tile{Atomic ? smem_take<T>(cursor, kKeyTile * kRows) : nullptr};

  const int64_t past_heads = (kv_head + 1) * a.group;
  // Queries [work.key, stop) of a head may see a key of the tile.
  const auto stop_of = [&](int64_t head) {
    const int64_t end = head < a.plain_heads ? work.row_end[0] : work.row_end[1];
    return a.window > 0 ? smaller(end, work.key_end - 1 + a.window) : end;
  };
  const auto fetch = [&](int64_t head, int64_t row, const Stage<T, D>& to) {
    if (head < past_heads) {
      const int64_t rows = stop_of(head) - row;
      fetch_rows<kThreads>(to.q, a.q + row * a.q_token + head * a.q_head, a.q_token, rows);
      fetch_rows<kThreads>(to.dout, a.dout + row * a.dout_token + head * a.dout_head, a.dout_token, rows);
      if (thread < kRows) {
        const int64_t at = head * a.tokens + row;
        const bool valid = thread < rows;
        cp_async4(to.lse + thread, a.lse + at + (valid ? thread : 0), valid);
        cp_async4(to.delta + thread, a.delta + at + (valid ? thread : 0), valid);
      }
    }
    cp_async_commit();
  };

  const int64_t keys = work.key_end - work.key;
  fetch_rows<kThreads>(k, a.k + work.key * a.k_token + kv_head * a.k_head, a.k_token, keys);
  fetch_rows<kThreads>(v, a.v + work.key * a.v_token + kv_head * a.v_head, a.v_token, keys);
  fetch(kv_head * a.group, work.key, even);

  const int64_t warp_key = work.key + warp * 16;
  const float scale = a.scale * kLog2E;
  float dk[1][D / 8][4] = {}, dv[1][D / 8][4] = {};
  int64_t head = kv_head * a.group, row = work.key;
  for (bool at_even = true; head < past_heads; at_even = !at_even) {
    const Stage<T, D> now = choose(at_even, even, odd);
    int64_t next_head = head, next_row = row + kRows;
    const int64_t stop = stop_of(head);
    if (next_row >= stop) {
      ++next_head;
      next_row = work.key;
    }
    fetch(next_head, next_row, choose(at_even, odd, even));
    cp_async_wait<1>();
    __syncthreads();  // this stage is there
    const bool busy =
        warp_key < work.key_end && row + kRows - 1 >= warp_key && (a.window == 0 || row - (warp_key + 15) < a.window);
    const int rows = static_cast<int>(smaller<int64_t>(stop - row, kRows));
    float ds[1][kRows / 8][4] = {};
    if (busy) {
      float p[1][kRows / 8][4] = {};
      multiply_rows<1, kRows>(p, k, warp * 16, now.q);
      const bool masked =
          row < warp_key + 15 || row + kRows > stop || (a.window > 0 && row + kRows - 1 - warp_key >= a.window);
      // Columns of this lane that key lane / 4 (and 8 more, for the lower half) is seen by: [first, end).
      const int first = static_cast<int>(warp_key - row) + lane / 4;
      const int reach = a.window > 0 ? static_cast<int>(smaller<int64_t>(a.window, 4 * kKeyTile)) : 4 * kKeyTile;
      UNROLL
      for (int n = 0; n < kRows / 8; ++n) {
        UNROLL
        for (int c = 0; c < 2; ++c) {
          const int column = n * 8 + lane % 4 * 2 + c;
          const float base = now.lse[column] * kLog2E;
          UNROLL
          for (int h = 0; h < 2; ++h) {
            float& x = p[0][n][2 * h + c];
            x = fast_exp2(smaller(x * scale - base, 0.0f));
            const int least = first + h * 8;
            if (masked && (column < least || column >= rows || column - least >= reach)) x = 0.0f;
          }
        }
      }
      multiply_rows<1, kRows>(ds, v, warp * 16, now.dout);
      UNROLL
      for (int n = 0; n < kRows / 8; ++n) {
        UNROLL
        for (int c = 0; c < 4; ++c) {
          ds[0][n][c] = p[0][n][c] * (ds[0][n][c] - now.delta[n * 8 + lane % 4 * 2 + c % 2]);
        }
      }
      multiply_columns<1, kRows>(dv, p, now.dout);
      multiply_columns<1, kRows>(dk, ds, now.q);
    }
    if (Atomic) {
      put_rows(ds[0], ds_tile, warp * 16);
      __syncthreads();  // all of ds is there
      add_query_gradient(ds_tile, k, a.dq_sum + (row * a.heads + head) * D, a.heads * D, rows);
    }
    __syncthreads();  // this stage is no longer needed
    head = next_head;
    row = next_row;
  }
  cp_async_wait<0>();

  if (warp_key >= work.key_end) return;
  const float one[1][2] = {{1.0f, 1.0f}}, scales[1][2] = {{a.scale, a.scale}};
  store_rows(dk, scales, k, warp * 16, a.dk + warp_key * a.dk_token + kv_head * a.dk_head, a.dk_token,
             work.key_end - warp_key);
  store_rows(dv, one, v, warp * 16, a.dv + warp_key * a.dv_token + kv_head * a.dv_head, a.dv_token,
             work.key_end - warp_key);
}

template <class T, int D>
constexpr size_t query_shared_bytes() {
  return 2 * kQueryTile * D * sizeof(T) + 4 * kKeys * D * sizeof(T);
}

template <class T, int D>
__global__ void __launch_bounds__(kThreads, 1) query_gradient_kernel(BackwardArguments<T> a) {
  const QueryTile work = a.query_tiles[blockIdx.x / a.heads_per_query_tile];
  const int64_t index = blockIdx.x % a.heads_per_query_tile, head = work.head + index;
  if (index >= work.heads) return;
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;

  DYN_SMEM(memory);
  unsigned char* cursor = memory;
  const Tile<T, D, kQueryTile> q{smem_take<T>(cursor, kQueryTile * D)}, dout{smem_take<T>(cursor, kQueryTile * D)};
  const Tile<T, D, kKeys> even_k{smem_take<T>(cursor, kKeys * D)}, odd_k{smem_take<T>(cursor, kKeys * D)};
  const Tile<T, D, kKeys> even_v{smem_take<T>(cursor, kKeys * D)}, odd_v{smem_take<T>(cursor, kKeys * D)};
  const T* keys = a.k + head / a.group * a.k_head;
  const T* values = a.v + head / a.group * a.v_head;

  const int64_t end = work.row_end;
  const int64_t begin = a.window > 0 ? larger(work.begin, work.row - a.window + 1) : work.begin;
  const auto fetch = [&](int64_t key, bool to_even) {
    if (key < end) {
      fetch_rows<kThreads>(to_even ? even_k : odd_k, keys + key * a.k_token, a.k_token, end - key);
      fetch_rows<kThreads>(to_even ? even_v : odd_v, values + key * a.v_token, a.v_token, end - key);
    }
    cp_async_commit();
  };
  fetch_rows<kThreads>(q, a.q + work.row * a.q_token + head * a.q_head, a.q_token, end - work.row);
  fetch_rows<kThreads>(dout, a.dout + work.row * a.dout_token + head * a.dout_head, a.dout_token, end - work.row);
  fetch(begin, true);

  const int row = warp * 16;
  const int64_t warp_row = work.row + row;
  const float scale = a.scale * kLog2E;
  float base[2] = {}, delta[2] = {};  // of rows lane / 4 and lane / 4 + 8
  UNROLL
  for (int h = 0; h < 2; ++h) {
    const int64_t query = warp_row + h * 8 + lane / 4;
    if (query < end) {
      base[h] = a.lse[head * a.tokens + query] * kLog2E;
      delta[h] = a.delta[head * a.tokens + query];
    }
  }
  float dq[1][D / 8][4] = {};
  bool at_even = true;
  for (int64_t key = begin; key < end; key += kKeys, at_even = !at_even) {
    const Tile<T, D, kKeys> k = at_even ? even_k : odd_k, v = at_even ? even_v : odd_v;
    fetch(key + kKeys, !at_even);
    cp_async_wait<1>();
    __syncthreads();  // this stage is there
    const bool busy = warp_row < end && key <= warp_row + 15;
    if (busy) {
      float p[1][kKeys / 8][4] = {}, ds[1][kKeys / 8][4] = {};
      multiply_rows<1, kKeys>(p, q, row, k);
      multiply_rows<1, kKeys>(ds, dout, row, v);
      const bool masked = key + kKeys - 1 > warp_row || (a.window > 0 && warp_row + 15 - key >= a.window);
      const int last = static_cast<int>(smaller<int64_t>(warp_row - key, kKeys)) + lane / 4;
      const int least = a.window > 0
                            ? static_cast<int>(larger<int64_t>(warp_row - key - a.window + 1, -kQueryTile)) + lane / 4
                            : -static_cast<int>(kQueryTile);
      UNROLL
      for (int n = 0; n < kKeys / 8; ++n) {
        UNROLL
        for (int c = 0; c < 4; ++c) {
          const int h = c / 2, column = n * 8 + lane % 4 * 2 + c % 2;
          float x = fast_exp2(smaller(p[0][n][c] * scale - base[h], 0.0f));
          if (masked && (column > last + h * 8 || column < least + h * 8)) x = 0.0f;
          ds[0][n][c] = x * (ds[0][n][c] - delta[h]);
        }
      }
      multiply_columns<1, kKeys>(dq, ds, k);
    }
    __syncthreads();  // this stage is no longer needed
  }
  cp_async_wait<0>();

  if (warp_row >= end) return;
  const float scales[1][2] = {{a.scale, a.scale}};
  store_rows(dq, scales, q, row, a.dq + warp_row * a.dq_token + head * a.dq_head, a.dq_token, end - warp_row);
}

// A warp for each row of dq_sum: zeros before, dq after.
template <class T, int D>
__global__ void __launch_bounds__(kThreads) clear_sum_kernel(BackwardArguments<T> a) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  if (row >= a.tokens * a.heads) return;
  float2* sum = reinterpret_cast<float2*>(a.dq_sum + row * D);
  for (int i = static_cast<int>(threadIdx.x) % kWarp; i < D / 2; i += kWarp) sum[i] = make_float2(0.0f, 0.0f);
}
template <class T, int D>
__global__ void __launch_bounds__(kThreads) round_sum_kernel(BackwardArguments<T> a) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  if (row >= a.tokens * a.heads) return;
  const float2* sum = reinterpret_cast<const float2*>(a.dq_sum + row * D);
  uint32_t* dq = reinterpret_cast<uint32_t*>(a.dq + row / a.heads * a.dq_token + row % a.heads * a.dq_head);
  for (int i = static_cast<int>(threadIdx.x) % kWarp; i < D / 2; i += kWarp) {
    dq[i] = pack2<T>(sum[i].x * a.scale, sum[i].y * a.scale);
  }
}

template <class T, int D>
void backward(const BackwardArguments<T>& a, int64_t query_tiles, int64_t key_tiles, Stream stream) {
  const dim3 threads(kThreads), rows = grid_of(ceil_div(a.tokens * a.heads, kWarps));
  const dim3 key_blocks = grid_of(key_tiles * a.heads_per_key_tile);
  launch(delta_kernel<T, D>, rows, threads, 0, stream, a);
  if (a.dq_sum != nullptr) {
    launch(clear_sum_kernel<T, D>, rows, threads, 0, stream, a);
    launch(key_value_gradient_kernel<T, D, true>, key_blocks, threads, key_shared_bytes<T, D, true>(), stream, a);
    launch(round_sum_kernel<T, D>, rows, threads, 0, stream, a);
  } else {
    launch(key_value_gradient_kernel<T, D, false>, key_blocks, threads, key_shared_bytes<T, D, false>(), stream, a);
    launch(query_gradient_kernel<T, D>, grid_of(query_tiles * a.heads_per_query_tile), threads,
           query_shared_bytes<T, D>(), stream, a);
  }
}

}  // namespace

void attention_backward(const AttentionShape& shape, const QueryWork& query_work, const KeyWork& key_work,
                        const ConstHeads& dout, const ConstHeads& q, const ConstHeads& k, const ConstHeads& v,
                        const ConstHeads& out, const float* lse, float* delta, float* dq_sum, const Heads& dq,
                        const Heads& dk, const Heads& dv, Stream stream) {
  check_heads("dout", dout.data, dout.token, dout.head);
  check_heads("q", q.data, q.token, q.head);
  check_heads("k", k.data, k.token, k.head);
  check_heads("v", v.data, v.token, v.head);
  check_heads("out", out.data, out.token, out.head);
  check_heads("dq", dq.data, dq.token, dq.head);
  check_heads("dk", dk.data, dk.token, dk.head);
  check_heads("dv", dv.data, dv.token, dv.head);
  for_type_and_size(shape, [&](auto type, auto size) {
    using T = decltype(type);
    BackwardArguments<T> a{};
    a.query_tiles = query_work.tiles;
    a.key_tiles = key_work.tiles;
    a.heads_per_query_tile = query_work.heads;
    a.heads_per_key_tile = key_work.heads;
    a.group = shape.heads / shape.kv_heads;
    a.tokens = shape.tokens;
    a.heads = shape.heads;
    a.plain_heads = shape.plain_heads;
    a.window = window_of(shape);
    a.scale = shape.scale;
    a.dout = static_cast<const T*>(dout.data), a.dout_token = dout.token, a.dout_head = dout.head;
    a.q = static_cast<const T*>(q.data), a.q_token = q.token, a.q_head = q.head;
    a.k = static_cast<const T*>(k.data), a.k_token = k.token, a.k_head = k.head;
    a.v = static_cast<const T*>(v.data), a.v_token = v.token, a.v_head = v.head;
    a.out = static_cast<const T*>(out.data), a.out_token = out.token, a.out_head = out.head;
    a.dq = static_cast<T*>(dq.data), a.dq_token = dq.token, a.dq_head = dq.head;
    a.dk = static_cast<T*>(dk.data), a.dk_token = dk.token, a.dk_head = dk.head;
    a.dv = static_cast<T*>(dv.data), a.dv_token = dv.token, a.dv_head = dv.head;
    a.lse = lse;
    a.delta = delta;
    a.dq_sum = dq_sum;
    backward<T, decltype(size)::value>(a, query_work.count, key_work.count, stream);
  });
}

}  // namespace longlora::cuda

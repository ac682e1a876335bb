// The pieces of the attention kernels: tiles of rows in shared memory, products of tiles, who may look at whom.
//
// A tile is [Rows][D] 16-bit values in chunks of 8 (16 bytes). Chunk c of row r stands at place c ^ (r & 7), so that
// the eight rows that one phase of ldmatrix reads lie in different banks.
#pragma once
#include "cuda/device.cuh"

namespace longlora::cuda {

constexpr float kLog2E = 1.4426950408889634f, kLn2 = 0.6931471805599453f;

template <class T, int D, int Rows>
struct Tile {
  static constexpr int kChunks = D / 8, kElements = Rows * D, kRowBytes = D * static_cast<int>(sizeof(T));
  T* data;
  DEVICE static constexpr int place(int row, int chunk) { return row * D + ((chunk ^ (row & 7)) * 8); }
  DEVICE T* at(int row, int chunk) const { return data + place(row, chunk); }
  // The address of chunk 2 i + j of rows 8 m + row, as address(row, j) ^ (32 i) + 8 m kRowBytes: tiles are aligned to
  // their rows, so that the exclusive or meets the chunk's bits only.
  DEVICE SharedAddress address(int row, int chunk) const {
    return SharedAddress(data) + static_cast<uint32_t>(place(row, chunk) * static_cast<int>(sizeof(T)));
  }
};

// Starts to copy rows [0, rows) of a matrix with `stride` elements a row into the tile, zeros below.
template <int Threads, class T, int D, int Rows>
DEVICE void fetch_rows(const Tile<T, D, Rows>& tile, const T* from, int64_t stride, int64_t rows) {
  constexpr int kPass = Threads / Tile<T, D, Rows>::kChunks;  // rows at a time
  static_assert(Rows % kPass == 0 && kPass % 8 == 0);
  const int thread = static_cast<int>(threadIdx.x), chunk = thread % Tile<T, D, Rows>::kChunks;
  const int first = thread / Tile<T, D, Rows>::kChunks;
  const int there = static_cast<int>(smaller<int64_t>(rows, Rows));
  const SharedAddress to = tile.address(first, chunk);
  const T* mine = from + first * stride + chunk * 8;
  UNROLL
  for (int i = 0; i < Rows / kPass; ++i) {
    const bool valid = first + i * kPass < there;
    cp_async16(to + static_cast<uint32_t>(i * kPass * Tile<T, D, Rows>::kRowBytes), valid ? mine : from, valid);
    mine += kPass * stride;
  }
}

// acc [16 M][N] += a [rows from `row`][D] b[N][D]^T. Accumulators as mma gives them: acc[m][n] is a block of 16 x 8.
template <int M, int N, class T, int D, int RowsA>
DEVICE void multiply_rows(float (&acc)[M][N / 8][4], const Tile<T, D, RowsA>& a, int row, const Tile<T, D, N>& b) {
  constexpr uint32_t kBlock = 16 * Tile<T, D, N>::kRowBytes;  // 16 rows
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const SharedAddress at_a = a.address(row + lane % 16, lane / 16);
  const SharedAddress at_b = b.address(lane / 16 * 8 + lane % 8, lane / 8 % 2);
  UNROLL
  for (int k = 0; k < D / 16; ++k) {
    uint32_t fa[M][4];
    UNROLL
    for (int m = 0; m < M; ++m) ldmatrix_x4(fa[m], (at_a ^ (32u * k)) + m * kBlock);
    UNROLL
    for (int n = 0; n < N / 16; ++n) {
      uint32_t fb[4];
      ldmatrix_x4(fb, (at_b ^ (32u * k)) + n * kBlock);
      const uint32_t left[2] = {fb[0], fb[1]}, right[2] = {fb[2], fb[3]};
      UNROLL
      for (int m = 0; m < M; ++m) {
        mma_m16n8k16<T>(acc[m][2 * n], fa[m], left, acc[m][2 * n]);
        mma_m16n8k16<T>(acc[m][2 * n + 1], fa[m], right, acc[m][2 * n + 1]);
      }
    }
  }
}

// acc [16 M][D] += p [16 M][K] b[K][D], with p in the registers where multiply_rows left its result.
template <int M, int K, class T, int D>
DEVICE void multiply_columns(float (&acc)[M][D / 8][4], const float (&p)[M][K / 8][4], const Tile<T, D, K>& b) {
  constexpr uint32_t kBlock = 16 * Tile<T, D, K>::kRowBytes;  // 16 rows
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const SharedAddress at_b = b.address(lane % 16, lane / 16);
  UNROLL
  for (int k = 0; k < K / 16; ++k) {
    uint32_t fa[M][4];
    UNROLL
    for (int m = 0; m < M; ++m) {
      UNROLL
      for (int r = 0; r < 4; ++r) {
        const float* block = p[m][2 * k + r / 2];
        fa[m][r] = pack2<T>(block[r % 2 * 2], block[r % 2 * 2 + 1]);
      }
    }
    UNROLL
    for (int n = 0; n < D / 16; ++n) {
      uint32_t fb[4];
      ldmatrix_x4_trans(fb, (at_b ^ (32u * n)) + k * kBlock);
      const uint32_t left[2] = {fb[0], fb[1]}, right[2] = {fb[2], fb[3]};
      UNROLL
      for (int m = 0; m < M; ++m) {
        mma_m16n8k16<T>(acc[m][2 * n], fa[m], left, acc[m][2 * n]);
        mma_m16n8k16<T>(acc[m][2 * n + 1], fa[m], right, acc[m][2 * n + 1]);
      }
    }
  }
}

// Leaves 16 rows of accumulators [16][N] in rows [row, row + 16) of a tile, rounded.
template <class T, int N, int Rows>
DEVICE void put_rows(const float (&acc)[N / 8][4], const Tile<T, N, Rows>& tile, int row) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  UNROLL
  for (int n = 0; n < N / 8; ++n) {
    UNROLL
    for (int h = 0; h < 2; ++h) {
      T* at = tile.at(row + h * 8 + lane / 4, n) + lane % 4 * 2;
      *reinterpret_cast<uint32_t*>(at) = pack2<T>(acc[n][2 * h], acc[n][2 * h + 1]);
    }
  }
}

// acc [16][N] += a^T b for columns [column_a, + 16) of a[K][DA] and [column_b, + N) of b[K][DB]; both multiples of 16.
template <int N, class T, int K, int DA, int DB>
DEVICE void multiply_transposed(float (&acc)[N / 8][4], const Tile<T, DA, K>& a, int column_a, const Tile<T, DB, K>& b,
                                int column_b) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const SharedAddress at_a = a.address(lane / 16 * 8 + lane % 8, lane / 8 % 2) ^ (2u * column_a);
  const SharedAddress at_b = b.address(lane % 16, lane / 16) ^ (2u * column_b);
  UNROLL
  for (int k = 0; k < K / 16; ++k) {
    uint32_t fa[4];
    ldmatrix_x4_trans(fa, at_a + k * 16u * Tile<T, DA, K>::kRowBytes);
    UNROLL
    for (int n = 0; n < N / 16; ++n) {
      uint32_t fb[4];
      ldmatrix_x4_trans(fb, (at_b ^ (32u * n)) + k * 16u * Tile<T, DB, K>::kRowBytes);
      const uint32_t left[2] = {fb[0], fb[1]}, right[2] = {fb[2], fb[3]};
      mma_m16n8k16<T>(acc[2 * n], fa, left, acc[2 * n]);
      mma_m16n8k16<T>(acc[2 * n + 1], fa, right, acc[2 * n + 1]);
    }
  }
}

// Writes the warp's own 16 M rows of accumulators, times a factor each, to `to`, through rows of a tile that this warp
// alone uses: 16 bytes a lane. factor[m][h] is for rows m * 16 + h * 8 + lane / 4. rows: how many exist.
template <int M, class T, int D, int Rows>
DEVICE void store_rows(const float (&acc)[M][D / 8][4], const float (&factor)[M][2], const Tile<T, D, Rows>& tile,
                       int row, T* to, int64_t stride, int64_t rows) {
  constexpr int kChunks = Tile<T, D, Rows>::kChunks;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  __syncwarp();  // what the warp read from these rows is read
  UNROLL
  for (int m = 0; m < M; ++m) {
    UNROLL
    for (int n = 0; n < D / 8; ++n) {
      UNROLL
      for (int h = 0; h < 2; ++h) {
        T* at = tile.at(row + m * 16 + h * 8 + lane / 4, n) + lane % 4 * 2;
        *reinterpret_cast<uint32_t*>(at) =
            pack2<T>(acc[m][n][2 * h] * factor[m][h], acc[m][n][2 * h + 1] * factor[m][h]);
      }
    }
  }
  __syncwarp();
  UNROLL
  for (int i = lane; i < M * 16 * kChunks; i += kWarp) {
    const int r = i / kChunks, chunk = i % kChunks;
    if (r < rows) {
      *reinterpret_cast<uint4*>(to + r * stride + chunk * 8) = *reinterpret_cast<const uint4*>(tile.at(row + r, chunk));
    }
  }
}

}  // namespace longlora::cuda

// Products of bfloat16 in AMX tiles, for the parts of attention: C (float32) = or += A B. A tile is 16 rows of 64 bytes, so
// that the operands lie as in attention_tile.h: A [rows][units], B [units][columns], a unit being a pair of bfloat16.
#pragma once
#include "core/ops/cpu/attention_tile.h"

namespace longlora::LONGLORA_CPU_NAMESPACE {
namespace attention {

template <class T>
struct Tiles {
  static constexpr bool kUsed = false;
  struct InUse {};
};

#if defined(__AMX_BF16__)

template <>
struct Tiles<bf16> {
  static constexpr bool kUsed = true;
  static constexpr int64_t kTile = 16;  // rows, columns and units of a tile
  using Unit = Operand<bf16>::Unit;

  // A thread may multiply while it holds one. Other libraries set up their own tiles before they use them; none of their
  // work may be under way in this thread.
  class InUse {
   public:
    InUse() {
      struct alignas(64) {
        uint8_t palette = 1, start_row = 0, reserved[14] = {};
        uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
        uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
      } const shape;
      static_assert(sizeof shape == 64);
      asm volatile("" ::"r"(&shape) : "memory");  // GCC 12's _tile_loadconfig does not say that it reads all of it
      _tile_loadconfig(&shape);
    }
    ~InUse() { _tile_release(); }
    InUse(const InUse&) = delete;
    InUse& operator=(const InUse&) = delete;
  };

  // The units [from, to) that a block of C sums over; none: the block is left as it is. Multiples of 16.
  struct Range {
    int64_t from, to;
  };

  // C [rows][columns], with `add` += instead of =. Rows and columns are multiples of 16; range(row, end) gives
  // the sum of a block of at most 32 by 32 whose first row is `row` and whose last column is before `end`.
  template <bool add, class Ranges>
  static void multiply(float* c, int64_t ldc, const Unit* a, int64_t lda, const Unit* b, int64_t ldb, int64_t rows,
                       int64_t columns, Ranges&& range) {
    // GCC 12 may move stores past the loads of tiles, which it does not know to read memory.
    asm volatile("" ::: "memory");
    for (int64_t column = 0; column < columns; column += 2 * kTile) {
      const bool wide = columns - column > kTile;
      for (int64_t row = 0; row < rows; row += 2 * kTile) {
        const bool tall = rows - row > kTile;
        const Range sum = range(row, column + (wide ? 2 * kTile : kTile));
        if (sum.to <= sum.from) continue;
        const Block block = {
            c + row * ldc + column, a + row * lda + sum.from, b + sum.from * ldb + column, ldc * 4, lda * 4, ldb * 4,
            sum.to - sum.from};
        if (tall && wide)
          block.run<add, true, true>();
        else if (tall)
          block.run<add, true, false>();
        else if (wide)
          block.run<add, false, true>();
        else
          block.run<add, false, false>();
      }
    }
  }

 private:
  struct Block {
    float* c;
    const Unit *a, *b;
    int64_t c_bytes, a_bytes, b_bytes;  // from row to row
    int64_t units;

    // Tiles 0 to 3: the sums; 4 and 5: of A, one below the other; 6 and 7: of B, side by side.
    template <bool add, bool tall, bool wide>
    void run() const {
      float* below = c + 4 * c_bytes;
      if constexpr (add) {
        _tile_loadd(0, c, c_bytes);
        if constexpr (wide) _tile_loadd(1, c + kTile, c_bytes);
        if constexpr (tall) _tile_loadd(2, below, c_bytes);
        if constexpr (tall && wide) _tile_loadd(3, below + kTile, c_bytes);
      } else {
        _tile_zero(0);
        if constexpr (wide) _tile_zero(1);
        if constexpr (tall) _tile_zero(2);
        if constexpr (tall && wide) _tile_zero(3);
      }
      for (int64_t unit = 0; unit < units; unit += kTile) {
        const Unit *left = a + unit, *right = b + unit * (b_bytes / 4);
        _tile_loadd(4, left, a_bytes);
        _tile_loadd(6, right, b_bytes);
        _tile_dpbf16ps(0, 4, 6);
        if constexpr (wide) {
          _tile_loadd(7, right + kTile, b_bytes);
          _tile_dpbf16ps(1, 4, 7);
        }
        if constexpr (tall) {
          _tile_loadd(5, left + 4 * a_bytes, a_bytes);
          _tile_dpbf16ps(2, 5, 6);
          if constexpr (wide) _tile_dpbf16ps(3, 5, 7);
        }
      }
      _tile_stored(0, c, c_bytes);
      if constexpr (wide) _tile_stored(1, c + kTile, c_bytes);
      if constexpr (tall) _tile_stored(2, below, c_bytes);
      if constexpr (tall && wide) _tile_stored(3, below + kTile, c_bytes);
    }
  };
};

#endif

}  // namespace attention
}  // namespace longlora::LONGLORA_CPU_NAMESPACE

// What the lanes of a warp do together: the last one to arrive does it for all.
#include <bit>
#include <cstdio>

#include "cuda/host/block.h"
#include "cuda/host/convert.h"
#include "cuda/host/race.h"

namespace longlora::cuda::host {
namespace {

std::string hex(uint32_t mask) {
  char text[12];
  std::snprintf(text, sizeof(text), "%08x", mask);
  return text;
}

// The parked lanes of the caller's warp that wait for the same thing; an error where two lanes wait for each other with
// different masks or at different lines.
uint32_t check_and_count(Block& b, const Thread& self, unsigned first) {
  uint32_t here = 0;
  for (unsigned lane = 0; lane < 32 && first + lane < b.count; ++lane) {
    const Thread& other = b.threads[first + lane];
    const bool mutual = (self.mask >> lane & 1) != 0 && (other.mask >> (self.index - first) & 1) != 0;
    if (&other == &self || !mutual) continue;
    if (other.mask != self.mask) {
      kernel_error("calls " + to_string(self.spot) + " with mask " + hex(self.mask) + ", but lane " +
                   std::to_string(lane) + " waits at " + to_string(other.spot) + " with mask " + hex(other.mask));
    }
    if (!(other.spot == self.spot)) {
      kernel_error("is at " + to_string(self.spot) + ", but lane " + std::to_string(lane) +
                   " of the same mask waits at " + to_string(other.spot));
    }
    here |= uint32_t{1} << lane;
  }
  return here;
}

struct ShuffleOperand {
  uint64_t value, result;
  Shuffle kind;
  int lane_or_delta, width, missing;
};

void do_shuffle(void* const* operands, uint32_t mask) {
  for (int lane = 0; lane < 32; ++lane) {
    if ((mask >> lane & 1) == 0) continue;
    ShuffleOperand& mine = *static_cast<ShuffleOperand*>(operands[lane]);
    const int first = lane / mine.width * mine.width, end = first + mine.width;
    int source = lane;
    switch (mine.kind) {
      case Shuffle::index:
        source = first + (mine.lane_or_delta & (mine.width - 1));
        break;
      case Shuffle::up:
        source = lane - mine.lane_or_delta < first ? lane : lane - mine.lane_or_delta;
        break;
      case Shuffle::down:
        source = lane + mine.lane_or_delta >= end ? lane : lane + mine.lane_or_delta;
        break;
      case Shuffle::exclusive_or:
        source = (lane ^ mine.lane_or_delta) >= end ? lane : lane ^ mine.lane_or_delta;
        break;
    }
    const bool there = source >= 0 && source < 32 && (mask >> source & 1) != 0;
    mine.missing = there ? -1 : source;
    if (there) mine.result = static_cast<ShuffleOperand*>(operands[source])->value;
  }
}

struct BallotOperand {
  bool predicate;
  uint32_t result;
};

void do_ballot(void* const* operands, uint32_t mask) {
  uint32_t votes = 0;
  for (int lane = 0; lane < 32; ++lane) {
    if ((mask >> lane & 1) != 0 && static_cast<BallotOperand*>(operands[lane])->predicate) votes |= uint32_t{1} << lane;
  }
  for (int lane = 0; lane < 32; ++lane) {
    if ((mask >> lane & 1) != 0) static_cast<BallotOperand*>(operands[lane])->result = votes;
  }
}

struct MatrixOperand {
  uint32_t* r;
  const uint16_t* row;
  bool transposed;
};

// Register m of lane 4g + t: elements [g][2t, 2t+1] of matrix m, whose rows are at lanes 8m .. 8m+7; transposed
// [2t, 2t+1][g]. (PTX ISA, ldmatrix.)
void do_ldmatrix(void* const* operands, uint32_t) {
  for (int m = 0; m < 4; ++m) {
    const uint16_t* rows[8];
    int phases[8] = {}, most = 0;
    for (int i = 0; i < 8; ++i) {
      rows[i] = static_cast<MatrixOperand*>(operands[8 * m + i])->row;
      const int used = ++phases[reinterpret_cast<uintptr_t>(rows[i]) / 16 % 8];
      most = used > most ? used : most;
    }
    statistics().bank_conflicts += most - 1;
    for (int lane = 0; lane < 32; ++lane) {
      MatrixOperand& mine = *static_cast<MatrixOperand*>(operands[lane]);
      const int g = lane / 4, t = lane % 4;
      const uint16_t low = mine.transposed ? rows[2 * t][g] : rows[g][2 * t];
      const uint16_t high = mine.transposed ? rows[2 * t + 1][g] : rows[g][2 * t + 1];
      mine.r[m] = low | static_cast<uint32_t>(high) << 16;
    }
  }
  ++statistics().ldmatrix;
}

struct MmaOperand {
  float* d;
  const uint32_t *a, *b;
  const float* c;
};

// d[16][8] = a[16][16] b[16][8] + c[16][8]. Lane 4g + t holds of a: rows g, g+8, g, g+8, columns 2t, 2t+1 (+8 for the
// last two registers); of b: rows 2t, 2t+1 (+8), column g; of c and d: (g, 2t), (g, 2t+1), (g+8, 2t), (g+8, 2t+1).
// (PTX ISA, mma.m16n8k16.)
template <float (*to_float)(uint16_t)>
void do_mma(void* const* operands, uint32_t) {
  float a[16][16], b[16][8], d[16][8];
  for (int lane = 0; lane < 32; ++lane) {
    const MmaOperand& mine = *static_cast<MmaOperand*>(operands[lane]);
    const int g = lane / 4, t = lane % 4;
    for (int r = 0; r < 4; ++r) {
      const int row = g + r % 2 * 8, column = 2 * t + r / 2 * 8;
      a[row][column] = to_float(static_cast<uint16_t>(mine.a[r]));
      a[row][column + 1] = to_float(static_cast<uint16_t>(mine.a[r] >> 16));
    }
    for (int r = 0; r < 2; ++r) {
      b[2 * t + 8 * r][g] = to_float(static_cast<uint16_t>(mine.b[r]));
      b[2 * t + 8 * r + 1][g] = to_float(static_cast<uint16_t>(mine.b[r] >> 16));
    }
    for (int r = 0; r < 4; ++r) d[g + r / 2 * 8][2 * t + r % 2] = mine.c[r];
  }
  for (int i = 0; i < 16; ++i) {
    for (int k = 0; k < 16; ++k) {
      for (int j = 0; j < 8; ++j) d[i][j] += a[i][k] * b[k][j];
    }
  }
  for (int lane = 0; lane < 32; ++lane) {
    const MmaOperand& mine = *static_cast<MmaOperand*>(operands[lane]);
    const int g = lane / 4, t = lane % 4;
    for (int r = 0; r < 4; ++r) mine.d[r] = d[g + r / 2 * 8][2 * t + r % 2];
  }
  ++statistics().mma;
}

}  // namespace

void warp_collective(const char* what, uint32_t mask, void* operand, Execute execute, const char* file, int line) {
  Block& b = block();
  Thread& self = *b.current;
  if (const std::string report = race::take_report(); !report.empty()) kernel_error(report);
  const unsigned first = self.index & ~31u, lane = self.index & 31u;
  self.spot = {what, file, line};
  self.mask = mask;
  self.operand = operand;
  if ((mask >> lane & 1) == 0) {
    kernel_error("calls " + to_string(self.spot) + " with mask " + hex(mask) + ", which lacks its own lane " +
                 std::to_string(lane));
  }
  const uint32_t arrived = check_and_count(b, self, first) | uint32_t{1} << lane;
  if (arrived != mask) return park();
  void* operands[32];
  for (unsigned i = 0; i < 32; ++i) operands[i] = (mask >> i & 1) != 0 ? b.threads[first + i].operand : nullptr;
  execute(operands, mask);
  for (unsigned i = 0; i < 32; ++i) {
    if ((mask >> i & 1) != 0 && i != lane) make_ready(b.threads[first + i]);
  }
  self.mask = 0;
}

void warp_barrier(uint32_t mask, const char* file, int line) {
  // The last to arrive orders all of them.
  warp_collective(
      "__syncwarp", mask, nullptr,
      [](void* const*, uint32_t lanes) {
        const unsigned first = block().current->index & ~31u;
        std::vector<unsigned> threads;
        for (unsigned lane = 0; lane < 32; ++lane) {
          if ((lanes >> lane & 1) != 0) threads.push_back(first + lane);
        }
        race::synchronise(threads);
      },
      file, line);
}

uint64_t shuffle(Shuffle kind, uint32_t mask, uint64_t value, int lane_or_delta, int width, const char* file,
                 int line) {
  static constexpr const char* kNames[] = {"__shfl_sync", "__shfl_up_sync", "__shfl_down_sync", "__shfl_xor_sync"};
  const char* name = kNames[static_cast<int>(kind)];
  if (width <= 0 || width > 32 || !std::has_single_bit(static_cast<unsigned>(width))) {
    kernel_error("calls " + to_string({name, file, line}) + " with width " + std::to_string(width));
  }
  ShuffleOperand mine{value, value, kind, lane_or_delta, width, -1};
  warp_collective(name, mask, &mine, do_shuffle, file, line);
  if (mine.missing != -1) {
    kernel_error("reads lane " + std::to_string(mine.missing) + ", which is not in its mask " + hex(mask) + ", at " +
                 to_string({name, file, line}));
  }
  return mine.result;
}

uint32_t ballot(uint32_t mask, bool predicate, const char* file, int line) {
  BallotOperand mine{predicate, 0};
  warp_collective("__ballot_sync", mask, &mine, do_ballot, file, line);
  return mine.result;
}

void ldmatrix(uint32_t* r, const void* row, bool transposed, const char* file, int line) {
  const char* name = transposed ? "ldmatrix_x4_trans" : "ldmatrix_x4";
  const Block& b = block();
  const auto* bytes = static_cast<const unsigned char*>(row);
  if (reinterpret_cast<uintptr_t>(row) % 16 != 0)
    kernel_error("gives " + to_string({name, file, line}) + " a row that is not aligned to 16 bytes");
  if (bytes < b.arena || bytes + 16 > b.arena + b.arena_bytes) {
    kernel_error("gives " + to_string({name, file, line}) + " a row outside of shared memory");
  }
  race::read(row, 16);
  MatrixOperand mine{r, static_cast<const uint16_t*>(row), transposed};
  warp_collective(name, 0xffffffffu, &mine, do_ldmatrix, file, line);
}

void mma(float* d, const uint32_t* a, const uint32_t* b, const float* c, bool is_bf16, const char* file, int line) {
  MmaOperand mine{d, a, b, c};
  warp_collective("mma_m16n8k16", 0xffffffffu, &mine, is_bf16 ? do_mma<bf16_bits_to_float> : do_mma<fp16_bits_to_float>,
                  file, line);
}

}  // namespace longlora::cuda::host

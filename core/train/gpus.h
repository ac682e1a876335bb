// The GPUs that a run can be planned for: what they hold and how fast they are.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace longlora::train {

struct Gpu {
  const char* name;        // as on the command line
  const char* title;       // "A100 80 GB"
  int64_t memory;          // bytes that programs can take
  double peak;             // bfloat16 FLOP/s of the data sheet, dense
  double gemm;             // of it that large matrix products reach
  double attention[2][6];  // FLOP/s of attention, forward and backward, at kAttentionLengths
  double bandwidth;        // bytes/s of its memory
  double link, network;    // bytes/s and direction to GPUs of the same node, and of others
};

// Tokens of a segment at which the attention rates stand; causal, head size 128.
inline constexpr int64_t kAttentionLengths[6] = {512, 1024, 2048, 4096, 8192, 16384};

[[nodiscard]] const std::vector<Gpu>& gpus();
[[nodiscard]] const Gpu& find_gpu(const std::string& name);  // exit 2 with the names for another one

// The rate for segments of `length` tokens, linear between the table's lengths.
[[nodiscard]] double attention_rate(const Gpu& gpu, bool backward, double length);

}  // namespace longlora::train

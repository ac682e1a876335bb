// An adapter that servers take (vLLM, llama.cpp's converter): one rank for all modules, alpha equal to it, LoRA on attention
// and MLP alone. Scales (alpha, rsLoRA, patterns) are folded into B; several adapters become one by standing side by side.
#pragma once
#include <string>
#include <vector>

#include "core/adapt/merge.h"

namespace longlora::adapt {

struct PortableReport {
  int64_t rank = 0, modules = 0;
  std::vector<std::string> left_out;  // a line each: what the adapters hold and this form cannot
  std::string rope;                   // RoPE settings, as JSON, that the server must be given; empty: the base's own
};

// Writes the adapter folder options.out, in float32; dtype and max_shard_bytes have no meaning here. Errors as merge()'s;
// exit 2 for DoRA, which no sum of matrices expresses, and where nothing would be left.
PortableReport write_portable(const MergeOptions& options);

}  // namespace longlora::adapt

// A merged model against base + adapter, both run on a probe text.
#pragma once
#include <string>

#include "core/adapt/merge.h"

namespace longlora::adapt {

struct Verification {
  std::string left_out;  // why nothing was compared; empty: it was
  int64_t tokens = 0;    // of the probe
  double largest = 0;    // difference of a logit
  double relative = 0;   // root mean square of the differences over that of the logits
};

// Computes both in float32. Left out, with the reason, for several or weighted adapters (which nothing but a merge puts
// together), for adapters of another base, and where a model in float32 takes more than half of the memory that is free.
// Exit 1 when the merged model does not compute what base + adapter do: differences beyond what rounding its weights can
// make (a tenth of the logits), or not finite.
[[nodiscard]] Verification verify_merged(const MergeOptions& options, const std::filesystem::path& merged);

}  // namespace longlora::adapt

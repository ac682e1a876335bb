// What the ranks of a job can send one another.
#pragma once
#include "core/dist/job.h"
#include "core/doctor/findings.h"

namespace longlora::doctor {

// Sums over all ranks and messages to the next rank of a ring, small and large, against what the link can carry. The group of
// the job is open for tensors on `device`. The same section on every rank, of rank 0's clock. Throws Stopped on all
// ranks where one has had a signal.
[[nodiscard]] Section examine_links(dist::Job& job, const at::Device& device);

}  // namespace longlora::doctor

// `--nproc N`: the ranks of a job on this machine, as processes of this program.
#pragma once
#include "core/base/error.h"

namespace longlora::dist {

// Runs this program's own command line `count` times with torchrun's variables (core/dist/launch.h) and waits for all.
// The first signal goes on to the ranks, by the rules of core/base/signal.h. When a rank fails, its messages are shown first, then
// the others are ended: they learn of it by SIGUSR2, and get SIGKILL a few seconds later. Returns the exit code of the rank that failed first (1 where a signal killed it); 75 when all ranks
// stopped with it. Ranks get their share of the cores unless OMP_NUM_THREADS is set. When this process is killed, so are they.
[[nodiscard]] Exit supervise(int count);

}  // namespace longlora::dist

// The options of verbs that run on several ranks, and the way from them to a rank's work.
#pragma once
#include <functional>

#include "cmd/verb.h"
#include "core/dist/job.h"

namespace longlora::cmd {

void declare_rank_options(cxxopts::Options& options);

// Runs `work` on this process's rank. With --nproc N and no launcher's variables this process only supervises N others of
// the same command line, and returns what they come to; `check` is asked before they are started, so that what is wrong for all
// is said once.
[[nodiscard]] Exit run_ranks(const cxxopts::ParseResult& arguments, const std::function<Exit(dist::Job&)>& work,
                             const std::function<void(const dist::Launch&)>& check = {});

}  // namespace longlora::cmd

#include "cmd/rank_options.h"

#include "core/base/log.h"
#include "core/base/signal.h"
#include "core/dist/supervisor.h"

namespace longlora::cmd {
namespace {

// The value of --name, at least 1, or `otherwise`.
int positive(const cxxopts::ParseResult& arguments, const char* name, int otherwise) {
  if (arguments.count(name) == 0) return otherwise;
  const int value = arguments[name].as<int>();
  if (value < 1) usage_error("--{} {}: at least 1", name, value);
  return value;
}

}  // namespace

void declare_rank_options(cxxopts::Options& options) {
  options.add_options()("nproc", "run as N processes on this machine that share every step's rows",
                        cxxopts::value<int>(), "N")(
      "timeout", "of several processes: seconds until one that does not answer is given up (default 1800)",
      cxxopts::value<int>(), "S");
}

Exit run_ranks(const cxxopts::ParseResult& arguments, const std::function<Exit(dist::Job&)>& work,
               const std::function<void(const dist::Launch&)>& check) {
  const std::chrono::seconds timeout(positive(arguments, "timeout", static_cast<int>(dist::kTimeout.count())));
  const dist::Launch launch = dist::read_launch();
  const int count = positive(arguments, "nproc", launch.size);
  if (count > 1 && launch.alone()) {
    dist::Launch planned;
    planned.size = planned.local_size = count;
    if (check) check(planned);
    return dist::supervise(count);
  }
  if (count != launch.size) {
    usage_error("--nproc {} contradicts {}, which started {} ranks; leave --nproc out", count, launch.launcher,
                launch.size);
  }
  log::set_rank(launch.rank);
  if (!launch.first()) say_nothing_on_stop();
  dist::Job job(launch, timeout);
  return work(job);
}

}  // namespace longlora::cmd

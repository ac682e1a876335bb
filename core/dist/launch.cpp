#include "core/dist/launch.h"

#include <charconv>
#include <cstdlib>
#include <limits>
#include <optional>

#include "core/base/error.h"

namespace longlora::dist {
namespace {

class Reader {
 public:
  Reader(const Variables& variables, const char* launcher) : variables_(variables), launcher_(launcher) {}

  [[nodiscard]] std::string text(const char* name) const {
    const char* value = variables_(name);
    return value == nullptr ? "" : value;
  }
  [[nodiscard]] bool has(const char* name) const { return !text(name).empty(); }
  // Exit 2 when it is missing or is no number in [least, most].
  [[nodiscard]] int number(const char* name, int least = 0, int most = std::numeric_limits<int>::max()) const {
    const std::string value = text(name);
    if (value.empty()) usage_error("started by {}, but the variable {} is not set", launcher_, name);
    int parsed = 0;
    const auto [end, fault] = std::from_chars(value.data(), value.data() + value.size(), parsed);
    if (fault != std::errc() || end != value.data() + value.size() || parsed < least || parsed > most)
      usage_error("{}={}: is not a number from {} to {}", name, value, least, most);
    return parsed;
  }

 private:
  const Variables& variables_;
  const char* launcher_;
};

void check(const Launch& launch, const char* rank, const char* size) {
  if (launch.rank >= launch.size)
    usage_error("{}={} contradicts {}={}: ranks count from 0", rank, launch.rank, size, launch.size);
}

void read_master(Launch& launch, const Reader& reader) {
  if (reader.has("MASTER_ADDR")) launch.address = reader.text("MASTER_ADDR");
  if (reader.has("MASTER_PORT")) launch.port = reader.number("MASTER_PORT", 1, 65535);
}

// RANK and WORLD_SIZE, whoever set them.
std::optional<Launch> read_torch(const Variables& variables) {
  const bool elastic = variables("TORCHELASTIC_RUN_ID") != nullptr;
  const char* launcher = elastic ? "torchrun" : "RANK and WORLD_SIZE";
  const Reader reader(variables, launcher);
  if (!reader.has("RANK") && !reader.has("WORLD_SIZE")) return std::nullopt;
  if (!reader.has("RANK") || !reader.has("WORLD_SIZE")) {
    usage_error("the variable {} is set and {} is not; set both, or neither for one rank",
                reader.has("RANK") ? "RANK" : "WORLD_SIZE", reader.has("RANK") ? "WORLD_SIZE" : "RANK");
  }
  Launch launch;
  launch.rank = reader.number("RANK");
  launch.size = reader.number("WORLD_SIZE", 1);
  launch.launcher = launcher;
  check(launch, "RANK", "WORLD_SIZE");
  launch.local_rank = reader.has("LOCAL_RANK") ? reader.number("LOCAL_RANK") : launch.rank;
  launch.local_size =
      reader.has("LOCAL_WORLD_SIZE") ? reader.number("LOCAL_WORLD_SIZE", 1) : std::max(launch.local_rank + 1, 1);
  if (launch.local_rank >= launch.local_size || launch.local_size > launch.size || launch.local_rank > launch.rank) {
    usage_error("LOCAL_RANK={} and LOCAL_WORLD_SIZE={} contradict RANK={} and WORLD_SIZE={}", launch.local_rank,
                launch.local_size, launch.rank, launch.size);
  }
  read_master(launch, reader);
  launch.hosted = reader.text("TORCHELASTIC_USE_AGENT_STORE") == "True";
  launch.attempt = reader.text("TORCHELASTIC_RESTART_COUNT");
  if (launch.size > 1 && (launch.address.empty() || launch.port == 0)) {
    usage_error("WORLD_SIZE={}, but the variable {} is not set: the ranks have no place to meet", launch.size,
                launch.address.empty() ? "MASTER_ADDR" : "MASTER_PORT");
  }
  return launch;
}

std::optional<Launch> read_mpirun(const Variables& variables) {
  const Reader reader(variables, "mpirun");
  if (!reader.has("OMPI_COMM_WORLD_SIZE") && !reader.has("OMPI_COMM_WORLD_RANK")) return std::nullopt;
  Launch launch;
  launch.rank = reader.number("OMPI_COMM_WORLD_RANK");
  launch.size = reader.number("OMPI_COMM_WORLD_SIZE", 1);
  launch.local_rank = reader.number("OMPI_COMM_WORLD_LOCAL_RANK");
  launch.local_size = reader.number("OMPI_COMM_WORLD_LOCAL_SIZE", 1);
  launch.launcher = "mpirun";
  check(launch, "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE");
  if (launch.local_size == launch.size) launch.address = "localhost";
  read_master(launch, reader);
  if (launch.size > 1 && (launch.address.empty() || launch.port == 0)) {
    usage_error(
        "mpirun does not say where its ranks meet: pass {} on, e.g. mpirun -x MASTER_ADDR=$(hostname) "
        "-x MASTER_PORT=29500 ...",
        launch.address.empty() ? "MASTER_ADDR and MASTER_PORT" : "MASTER_PORT");
  }
  return launch;
}

// Only of a step: in the job's script itself SLURM_PROCID is 0 whatever the job's size.
std::optional<Launch> read_srun(const Variables& variables) {
  const Reader reader(variables, "srun");
  if (!reader.has("SLURM_STEP_NUM_TASKS")) return std::nullopt;
  Launch launch;
  launch.rank = reader.number("SLURM_PROCID");
  launch.size = reader.number("SLURM_STEP_NUM_TASKS", 1);
  launch.local_rank = reader.number("SLURM_LOCALID");
  launch.launcher = "srun";
  check(launch, "SLURM_PROCID", "SLURM_STEP_NUM_TASKS");
  if (launch.size == 1) return launch;
  // "4(x2),3": only whether all ranks are on one node is asked, and roughly how many share this one.
  const int nodes = reader.number("SLURM_STEP_NUM_NODES", 1);
  launch.local_size = std::max((launch.size + nodes - 1) / nodes, launch.local_rank + 1);
  launch.address = nodes == 1 ? "localhost" : first_host(reader.text("SLURM_STEP_NODELIST"));
  const int step = reader.has("SLURM_STEP_ID") ? reader.number("SLURM_STEP_ID") : 0;
  launch.port = 12000 + static_cast<int>((int64_t{reader.number("SLURM_JOB_ID")} * 7 + step) % 20000);
  launch.attempt = reader.text("SLURM_RESTART_COUNT");
  read_master(launch, reader);
  if (launch.address.empty()) usage_error("started by srun, but the variable SLURM_STEP_NODELIST is not set");
  return launch;
}

}  // namespace

std::string first_host(const std::string& nodes) {
  const size_t bracket = nodes.find('['), comma = nodes.find(',');
  if (bracket == nodes.npos || comma < bracket) return nodes.substr(0, comma);
  const size_t end = nodes.find_first_of("-,]", bracket), close = nodes.find(']', bracket);
  if (close == nodes.npos) return "";
  const size_t rest = std::min(nodes.find(',', close), nodes.size());
  return nodes.substr(0, bracket) + nodes.substr(bracket + 1, end - bracket - 1) +
         nodes.substr(close + 1, rest - close - 1);
}

Launch read_launch(const Variables& variables) {
  const auto torch = read_torch(variables);
  if (torch && variables("TORCHELASTIC_RUN_ID") != nullptr) return *torch;  // started inside whatever else there is
  auto outer = read_mpirun(variables);  // mpirun inside of a Slurm job starts its own helpers by srun
  if (!outer) outer = read_srun(variables);
  if (torch && outer && outer->size > 1 && (torch->rank != outer->rank || torch->size != outer->size)) {
    usage_error(
        "RANK={} WORLD_SIZE={} contradict {}, which says rank {} of {}; unset RANK and WORLD_SIZE (a script that sets "
        "them once gives every rank the same number)",
        torch->rank, torch->size, outer->launcher, outer->rank, outer->size);
  }
  if (torch) return *torch;
  return outer.value_or(Launch{});
}

Launch read_launch() {
  return read_launch([](const char* name) { return static_cast<const char*>(std::getenv(name)); });
}

}  // namespace longlora::dist

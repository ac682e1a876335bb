// Who a rank is, from the variables of torchrun, srun and mpirun.
#include <catch2/catch.hpp>
#include <map>

#include "core/base/error.h"
#include "core/dist/launch.h"

namespace longlora {
namespace {

using Environment = std::map<std::string, std::string>;

dist::Launch launch_of(const Environment& environment) {
  return dist::read_launch([&](const char* name) -> const char* {
    const auto found = environment.find(name);
    return found == environment.end() ? nullptr : found->second.c_str();
  });
}

// The message of the usage error, or "" where there is none.
std::string refusal(const Environment& environment) {
  try {
    (void)launch_of(environment);
  } catch (const Error& error) {
    CHECK(error.code() == Exit::usage);
    return error.what();
  }
  return "";
}

Environment with(Environment environment, const Environment& more) {
  for (const auto& [name, value] : more) environment[name] = value;
  return environment;
}
Environment without(Environment environment, const std::string& name) {
  environment.erase(name);
  return environment;
}

// As torchrun --nnodes 2 --nproc-per-node 4 sets them for the second rank of the second node.
const Environment kTorchrun = {{"RANK", "5"},
                               {"WORLD_SIZE", "8"},
                               {"LOCAL_RANK", "1"},
                               {"LOCAL_WORLD_SIZE", "4"},
                               {"MASTER_ADDR", "node1"},
                               {"MASTER_PORT", "29500"},
                               {"TORCHELASTIC_RUN_ID", "7"},
                               {"TORCHELASTIC_RESTART_COUNT", "2"},
                               {"TORCHELASTIC_USE_AGENT_STORE", "True"}};
// As srun --nodes 2 --ntasks-per-node 4 does.
const Environment kSrun = {{"SLURM_PROCID", "5"},       {"SLURM_STEP_NUM_TASKS", "8"},
                           {"SLURM_LOCALID", "1"},      {"SLURM_STEP_NUM_NODES", "2"},
                           {"SLURM_JOB_ID", "123"},     {"SLURM_STEP_NODELIST", "gpu[03-04]"},
                           {"SLURM_RESTART_COUNT", "1"}};
const Environment kMpirun = {{"OMPI_COMM_WORLD_RANK", "1"},
                             {"OMPI_COMM_WORLD_SIZE", "2"},
                             {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
                             {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"},
                             {"MASTER_PORT", "29501"}};

}  // namespace

TEST_CASE("without a launcher's variables there is one rank", "[dist]") {
  const dist::Launch alone = launch_of({});
  CHECK(alone.alone());
  CHECK(alone.first());
  // The script of a Slurm job, and a shell got by srun --pty, run one process whatever the job's size.
  CHECK(launch_of({{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "8"}, {"SLURM_JOB_ID", "5"}}).alone());
  CHECK(launch_of({{"SLURM_PROCID", "0"}, {"SLURM_STEP_NUM_TASKS", "1"}, {"SLURM_LOCALID", "0"}}).alone());
}

TEST_CASE("torchrun's, srun's and mpirun's variables say who a rank is", "[dist]") {
  const dist::Launch torch = launch_of(kTorchrun);
  CHECK((torch.rank == 5 && torch.size == 8 && torch.local_rank == 1 && torch.local_size == 4));
  CHECK((torch.address == "node1" && torch.port == 29500 && torch.hosted && torch.attempt == "2"));

  const dist::Launch srun = launch_of(kSrun);
  CHECK((srun.rank == 5 && srun.size == 8 && srun.local_rank == 1 && srun.local_size == 4));
  CHECK((srun.address == "gpu03" && !srun.hosted && srun.attempt == "1"));
  CHECK((srun.port > 1024 && srun.port < 32768));
  CHECK(launch_of(with(kSrun, {{"SLURM_PROCID", "0"}, {"SLURM_LOCALID", "0"}})).port == srun.port);
  CHECK(launch_of(with(kSrun, {{"SLURM_JOB_ID", "124"}})).port != srun.port);
  const dist::Launch told = launch_of(with(kSrun, {{"MASTER_ADDR", "10.0.0.7"}, {"MASTER_PORT", "4000"}}));
  CHECK((told.address == "10.0.0.7" && told.port == 4000));

  const dist::Launch mpirun = launch_of(kMpirun);
  CHECK((mpirun.rank == 1 && mpirun.size == 2 && mpirun.address == "localhost" && mpirun.port == 29501));
  // torchrun started by srun, one a node: the inner launcher counts.
  CHECK(launch_of(with(kSrun, kTorchrun)).launcher == "torchrun");
}

TEST_CASE("variables that are half there, wrong or contradict each other are refused by name", "[dist]") {
  for (const char* name : {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"})
    CHECK_THAT(refusal(without(kTorchrun, name)), Catch::Contains(name));
  for (const char* name :
       {"SLURM_PROCID", "SLURM_LOCALID", "SLURM_STEP_NUM_NODES", "SLURM_JOB_ID", "SLURM_STEP_NODELIST"})
    CHECK_THAT(refusal(without(kSrun, name)), Catch::Contains(name));
  for (const char* name : {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", "MASTER_PORT"})
    CHECK_THAT(refusal(without(kMpirun, name)), Catch::Contains(name));
  CHECK_THAT(refusal(with(kTorchrun, {{"RANK", "8"}})), Catch::Contains("RANK=8 contradicts WORLD_SIZE=8"));
  CHECK_THAT(refusal(with(kTorchrun, {{"RANK", "two"}})), Catch::Contains("RANK=two"));
  CHECK_THAT(refusal(with(kTorchrun, {{"RANK", "-1"}})), Catch::Contains("RANK=-1"));
  CHECK_THAT(refusal(with(kTorchrun, {{"LOCAL_RANK", "4"}})), Catch::Contains("LOCAL_RANK=4"));
  CHECK_THAT(refusal(with(kTorchrun, {{"MASTER_PORT", "70000"}})), Catch::Contains("MASTER_PORT=70000"));
  // RANK=0 set once in the job's script, for all tasks.
  const Environment by_hand = {{"RANK", "0"}, {"WORLD_SIZE", "8"}, {"MASTER_ADDR", "node1"}, {"MASTER_PORT", "29500"}};
  CHECK_THAT(refusal(with(kSrun, by_hand)), Catch::Contains("contradict srun, which says rank 5 of 8"));
  CHECK(refusal(with(by_hand, {{"RANK", "5"}})).empty());
}

TEST_CASE("the first host of a Slurm list", "[dist]") {
  CHECK(dist::first_host("node1") == "node1");
  CHECK(dist::first_host("node1,node2") == "node1");
  CHECK(dist::first_host("node[003-005,9],gpu1") == "node003");
  CHECK(dist::first_host("gpu1,node[003-005,9]") == "gpu1");
  CHECK(dist::first_host("rack[7]-x,b") == "rack7-x");
  CHECK(dist::first_host("node[7,9]") == "node7");
}

}  // namespace longlora

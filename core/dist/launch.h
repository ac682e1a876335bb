// Which rank of a job this process is, and where the ranks meet: said by the variables of whatever started it.
//
//   torchrun, longlora --nproc   RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT (and
//                                TORCHELASTIC_*: the launcher itself holds the meeting point)
//   srun                         SLURM_PROCID, SLURM_STEP_NUM_TASKS, SLURM_LOCALID, SLURM_STEP_TASKS_PER_NODE; the meeting
//                                point is the step's first node and a port from the job's number, unless MASTER_* say other
//   mpirun (Open MPI)            OMPI_COMM_WORLD_RANK, _SIZE, _LOCAL_RANK, _LOCAL_SIZE; MASTER_PORT, and on several nodes
//                                MASTER_ADDR, have to be given
#pragma once
#include <functional>
#include <string>

namespace longlora::dist {

struct Launch {
  int rank = 0, size = 1;
  int local_rank = 0, local_size = 1;  // among the ranks on this machine
  std::string address;                 // of the meeting point
  int port = 0;
  bool hosted = false;   // the launcher holds the meeting point; otherwise rank 0 does
  std::string attempt;   // tells a restarted job's ranks from those before, "" or "0", "1", ...
  std::string launcher;  // "torchrun", "srun", ... ; empty: this process was started alone

  [[nodiscard]] bool alone() const { return size == 1; }
  [[nodiscard]] bool first() const { return rank == 0; }
};

// The value of an environment variable, or null.
using Variables = std::function<const char*(const char* name)>;

// One rank where no launcher's variables are set. Exit 2 when they are half there, are no numbers, or contradict each other.
[[nodiscard]] Launch read_launch(const Variables& variables);
[[nodiscard]] Launch read_launch();  // of this process

// The first host of Slurm's list: "node[003-005,9],gpu1" -> "node003".
[[nodiscard]] std::string first_host(const std::string& nodes);

}  // namespace longlora::dist

// A run on one or several ranks: who this rank is, how it waits for the others while there is no group yet, the group, and a
// watch that says when a rank makes no progress and sees to it that all stop together.
#pragma once
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

#include "core/base/gpu_driver.h"
#include "core/dist/group.h"
#include "core/dist/launch.h"
#include "core/dist/leaving.h"
#include "core/dist/store.h"

namespace longlora::dist {

// Long enough for the slowest rank between two operations: a step's rows, a validation, a checkpoint.
inline constexpr std::chrono::seconds kTimeout{1800};

// What a rank works on: ranks [data * sequence_size, (data + 1) * sequence_size) share the rows of share `data`, and of each
// row this one has part `sequence`.
struct Place {
  int data = 0, data_size = 1;
  int sequence = 0, sequence_size = 1;
};
// Exit 2 where parallel.sequence does not divide the ranks.
[[nodiscard]] Place place_of(const Launch& launch, int64_t sequence_size);

class Job {
 public:
  Job() : Job(Launch{}, kTimeout) {}  // one rank
  // Several ranks meet here. `timeout`: without progress, after which a rank is said to hang.
  Job(Launch launch, std::chrono::milliseconds timeout);
  ~Job();
  Job(const Job&) = delete;
  Job& operator=(const Job&) = delete;

  [[nodiscard]] const Launch& launch() const { return launch_; }
  [[nodiscard]] bool first() const { return launch_.first(); }

  // `work` on rank 0, then on all others, for work that leaves files which the others find (a cache of tokens): they wait
  // as long as it takes. Each name once a job.
  void first_then_others(const std::string& name, const std::function<void()>& work);

  // Rank 0's value, before there is a group; the others wait for it as long as it takes. Each name once a job.
  [[nodiscard]] std::string of_first(const std::string& name, const std::string& value);

  // Exit 2 where another rank has this rank's GPU, before anything is loaded. Every rank needs one of its own, and numbers do not
  // tell: each rank may see a single GPU, always as number 0, though they are different GPUs; or too many ranks were started, and
  // some see the same. The GPU's own identity does. `gpu`: what this rank's device is, for a CPU and where that is unknown none.
  void claim_gpu(const at::Device& device);
  void claim_gpu(const Gpu& gpu);

  // Connects the ranks, once all have done what takes long alone.
  void open_group(int64_t sequence_size = 1, const at::Device& device = at::kCPU);
  [[nodiscard]] dist::Group& group() { return *group_; }
  // Those that share this rank's rows; of one without parallel.sequence.
  [[nodiscard]] dist::Group& sequence_group() { return *sequence_group_; }
  [[nodiscard]] const Place& place() const { return place_; }
  [[nodiscard]] Activity& activity() { return activity_; }

  // This rank begins part `part` of step `step`, or goes on in it, by one place. Throws Stopped where all ranks leave the step
  // because of a signal to one of them (core/dist/leaving.h).
  void begin_part(int64_t step, int64_t part);
  void go_on();

  // Over all ranks.
  [[nodiscard]] int64_t sum(int64_t value);

  // Exit 2 on the ranks whose value is not rank 0's: "rank 2 runs with other WHAT than rank 0".
  void check_same(const std::string& what, const std::string& value);

 private:
  class StopWatch;
  void watch();
  [[nodiscard]] std::optional<Store> connect_again(std::unique_lock<std::mutex>& hold);
  void leave_if_agreed();
  [[nodiscard]] std::string others_after_failure();

  Launch launch_;
  std::chrono::milliseconds timeout_;
  Activity activity_;
  std::optional<Store> store_;
  std::unique_ptr<Group> group_, sequence_group_;
  Place place_;
  Leaving leaving_;
  Point point_;
  std::mutex lock_;
  std::condition_variable ended_;
  bool end_ = false;
  std::thread watch_;
};

}  // namespace longlora::dist

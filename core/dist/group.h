// Ranks that compute together, and the operations between them. Every rank of a group calls the same operations in the same
// order with tensors of the same sizes, contiguous ones only. Each either waits until it is done, or (start_...) goes on
// beside what the rank computes meanwhile. Sums are added in an order that depends on nothing but the number of ranks and
// the size: repeated runs agree bit for bit, and so do the ranks among themselves.
#pragma once
#include <ATen/ATen.h>

#include <array>
#include <chrono>
#include <functional>
#include <memory>
#include <span>

#include "core/base/range.h"
#include "core/dist/activity.h"
#include "core/dist/store.h"

namespace longlora::dist {

enum class Operation { all_reduce, broadcast, all_gather, reduce_scatter, exchange, barrier };
inline constexpr size_t kOperations = 6;
[[nodiscard]] const char* to_string(Operation operation);

// What a rank put into the operations of a kind; of exchange, what it sent.
struct Traffic {
  int64_t calls = 0, bytes = 0;
};

struct Message {
  at::Tensor tensor;
  int peer;
};

// Those of `total` things that are `rank`'s: contiguous, the first ones get one more where it is uneven.
using Share = Range;
[[nodiscard]] Share share_of(int64_t total, int rank, int size);

class Group;

// An operation that is under way. Its tensors belong to it until wait() has returned.
class Pending {
 public:
  class Work {
   public:
    virtual ~Work() = default;
    virtual void wait() = 0;  // throws when the operation failed
  };

  Pending() = default;  // nothing is under way
  Pending(Pending&&) noexcept = default;
  Pending& operator=(Pending&& other) noexcept;
  ~Pending();  // waits too: the memory is in use until then
  void wait();

 private:
  friend class Group;
  Pending(Group& group, Operation operation, std::unique_ptr<Work> work)
      : group_(&group), operation_(operation), work_(std::move(work)) {}
  void abandon() noexcept;

  Group* group_ = nullptr;
  Operation operation_ = Operation::barrier;
  std::unique_ptr<Work> work_;
};

class Group {
 public:
  virtual ~Group() = default;
  Group(const Group&) = delete;
  Group& operator=(const Group&) = delete;

  [[nodiscard]] int rank() const { return rank_; }
  [[nodiscard]] int size() const { return size_; }

  // In place: the sum over the ranks (float32, float64, int64).
  [[nodiscard]] Pending start_all_reduce(const at::Tensor& tensor);
  // In place: the root's values.
  [[nodiscard]] Pending start_broadcast(const at::Tensor& tensor, int root);
  // all [size * n]: every rank's mine [n], in the order of the ranks.
  [[nodiscard]] Pending start_all_gather(const at::Tensor& all, const at::Tensor& mine);
  // mine [n]: the rank's part of the sum of all [size * n] over the ranks.
  [[nodiscard]] Pending start_reduce_scatter(const at::Tensor& mine, const at::Tensor& all);
  // All at once: at most one message to and one from a peer.
  [[nodiscard]] Pending start_exchange(std::span<const Message> sends, std::span<const Message> receives);

  void all_reduce(const at::Tensor& tensor) { start_all_reduce(tensor).wait(); }
  void broadcast(const at::Tensor& tensor, int root) { start_broadcast(tensor, root).wait(); }
  void all_gather(const at::Tensor& all, const at::Tensor& mine) { start_all_gather(all, mine).wait(); }
  void reduce_scatter(const at::Tensor& mine, const at::Tensor& all) { start_reduce_scatter(mine, all).wait(); }
  void exchange(std::span<const Message> sends, std::span<const Message> receives) {
    start_exchange(sends, receives).wait();
  }
  void barrier();

  [[nodiscard]] const Traffic& traffic(Operation operation) const { return traffic_[static_cast<size_t>(operation)]; }

 protected:
  using Work = std::unique_ptr<Pending::Work>;  // null: done already
  Group(int rank, int size, Activity& activity) : rank_(rank), size_(size), activity_(activity) {}

 private:
  friend class Pending;
  virtual Work do_all_reduce(at::Tensor tensor) = 0;
  virtual Work do_broadcast(at::Tensor tensor, int root) = 0;
  virtual Work do_all_gather(at::Tensor all, at::Tensor mine) = 0;
  virtual Work do_reduce_scatter(at::Tensor mine, at::Tensor all) = 0;
  virtual Work do_exchange(std::span<const Message> sends, std::span<const Message> receives) = 0;
  virtual Work do_barrier() = 0;
  // Throws what is to be said of an operation that failed.
  [[noreturn]] virtual void failed(Operation operation, const std::string& reason) = 0;
  [[nodiscard]] Pending start(Operation operation, int64_t bytes, const std::function<Work()>& work);
  void guarded(Operation operation, const std::function<void()>& work);

  int rank_, size_;
  Activity& activity_;
  std::array<Traffic, kOperations> traffic_;
};

// One rank: copies at most.
[[nodiscard]] std::unique_ptr<Group> group_of_one(Activity& activity);

// Called when an operation of a group has failed, before its error is thrown: returns what is known of the other ranks.
using OnFailure = std::function<std::string()>;

// Which ranks are in a group, seen from one of them.
struct Members {
  std::string name;  // the group's own among the groups of a job
  int rank, size;    // in the group
  bool one_machine;
};

// A group over c10d: Gloo for tensors in the machine's memory and, where `device` is a GPU, NCCL for those on it. An
// operation that takes longer than `timeout` fails (exit 1); so do those under way and all later ones when a rank ends.
// With NCCL waiting for an operation holds up the GPU, not this thread; its own watch ends a rank whose operation failed.
[[nodiscard]] std::unique_ptr<Group> connect_group(const Store& store, const Members& members, const at::Device& device,
                                                   std::chrono::milliseconds timeout, Activity& activity,
                                                   OnFailure on_failure);

}  // namespace longlora::dist

// Ranks that compute together, and the operations between them. Every rank of a group calls the same operations in the same
// order with tensors of the same sizes; all are blocking, contiguous tensors only. Sums are added in an order that depends
// on nothing but the number of ranks and the size: repeated runs agree bit for bit, and so do the ranks among themselves.
#pragma once
#include <ATen/ATen.h>

#include <array>
#include <chrono>
#include <functional>
#include <memory>
#include <span>

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

// The ranks [begin, end) of `total` things that are `rank`'s: contiguous, the first ones get one more where it is uneven.
struct Share {
  int64_t begin, end;
  [[nodiscard]] int64_t size() const { return end - begin; }
};
[[nodiscard]] Share share_of(int64_t total, int rank, int size);

class Group {
 public:
  virtual ~Group() = default;
  Group(const Group&) = delete;
  Group& operator=(const Group&) = delete;

  [[nodiscard]] int rank() const { return rank_; }
  [[nodiscard]] int size() const { return size_; }

  // In place: the sum over the ranks (float32, float64, int64).
  void all_reduce(const at::Tensor& tensor);
  // In place: the root's values.
  void broadcast(const at::Tensor& tensor, int root);
  // all [size * n]: every rank's mine [n], in the order of the ranks.
  void all_gather(const at::Tensor& all, const at::Tensor& mine);
  // mine [n]: the rank's part of the sum of all [size * n] over the ranks.
  void reduce_scatter(const at::Tensor& mine, const at::Tensor& all);
  // All at once: at most one message to and one from a peer.
  void exchange(std::span<const Message> sends, std::span<const Message> receives);
  void barrier();

  [[nodiscard]] const Traffic& traffic(Operation operation) const { return traffic_[static_cast<size_t>(operation)]; }

 protected:
  Group(int rank, int size, Activity& activity) : rank_(rank), size_(size), activity_(activity) {}

 private:
  virtual void do_all_reduce(at::Tensor tensor) = 0;
  virtual void do_broadcast(at::Tensor tensor, int root) = 0;
  virtual void do_all_gather(at::Tensor all, at::Tensor mine) = 0;
  virtual void do_reduce_scatter(at::Tensor mine, at::Tensor all) = 0;
  virtual void do_exchange(std::span<const Message> sends, std::span<const Message> receives) = 0;
  virtual void do_barrier() = 0;
  // Throws what is to be said of an operation that failed.
  [[noreturn]] virtual void failed(Operation operation, const std::string& reason) = 0;
  void run(Operation operation, int64_t bytes, const std::function<void()>& work);

  int rank_, size_;
  Activity& activity_;
  std::array<Traffic, kOperations> traffic_;
};

// One rank: copies at most.
[[nodiscard]] std::unique_ptr<Group> group_of_one(Activity& activity);

// Called when an operation of a group has failed, before its error is thrown: returns what is known of the other ranks.
using OnFailure = std::function<std::string()>;

// All ranks of the job over Gloo (CPU tensors). `name` is the group's own. An operation that takes longer than `timeout`
// fails (exit 1); so do those under way and all later ones when a rank ends.
[[nodiscard]] std::unique_ptr<Group> open_gloo_group(const Store& store, const std::string& name, const Launch& launch,
                                                     std::chrono::milliseconds timeout, Activity& activity,
                                                     OnFailure on_failure);

}  // namespace longlora::dist

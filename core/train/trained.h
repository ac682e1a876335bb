// What is trained, over the ranks of a job: gradients are summed over them while the backward pass goes on, each rank updates all
// of it or one slice of every parameter (ZeRO: Rajbhandari et al. 2020), and gets the others' new values.
//
// Parameters go in buckets, so that one operation carries many small ones, in the order in which the backward pass completes
// them. That order is fixed, and so are the sums' bits.
#pragma once
#include <ATen/ATen.h>

#include <vector>

#include "core/dist/group.h"
#include "core/model/llama.h"
#include "core/train/shard.h"

namespace longlora::train {

// What a rank updates of a parameter; flat, [cut.count(numel)], zeros beyond the parameter's end.
struct Slice {
  model::Parameter* parameter;
  at::Tensor master;         // the parameter's, or what it is a view of
  at::Tensor grad;           // after Trained::sum()
  at::Tensor first, second;  // moments
};

// Where the gradients of a step are.
enum class Gradients {
  whole,          // on every rank
  sliced,         // whole ones on every rank, and the sums of its slices
  sliced_by_unit  // the sums of its slices; whole ones of a unit of the model only during its backward pass
};

[[nodiscard]] Gradients gradients_of(Shard shard, bool full);

class Trained {
 public:
  static constexpr int64_t kBucket = int64_t{8} << 20;  // elements: enough to be carried at the full rate of a network

  // The parameters' cut must be that of the group, and none for Gradients::whole. Their gradients are moved next to one another,
  // so nothing may have kept a reference to one. A bucket has at most `bucket` elements, or one parameter.
  Trained(model::Llama& llama, Gradients gradients, dist::Group& group, int64_t bucket = kBucket);

  [[nodiscard]] std::vector<Slice>& slices() { return slices_; }
  [[nodiscard]] const std::vector<Slice>& slices() const { return slices_; }
  [[nodiscard]] bool sliced() const { return kind_ != Gradients::whole; }
  [[nodiscard]] dist::Group& group() const { return group_; }

  // The next micro-batch is the step's last: buckets are summed as it completes them.
  void last_micro_batch() { last_ = true; }
  // As in core/model/unit_watcher.h.
  void filling(size_t unit);
  void filled(size_t unit);
  // Sums what is left and waits: each slice's gradient is that of the whole step.
  void sum();

  // After the optimizer has changed the slices: every rank's values (with sliced_by_unit they are core/train/weight_shards.h's), and
  // zeros in whole gradients that stand beside the slices' (the optimizer leaves zeros in those).
  void spread();

  // All of what `slice` is this rank's part of: every rank asks for the same. One tensor at a time is there.
  [[nodiscard]] at::Tensor whole(const at::Tensor& slice, at::IntArrayRef shape) const;

 private:
  struct Bucket {
    size_t unit;  // the last of its units that the backward pass comes to
    std::vector<Slice*> members = {};
    std::vector<int64_t> columns = {};  // where each one's slice begins in a row
    int64_t width = 0;                  // of a row: the members' slices, one after the other
    at::Tensor gradients = {};          // [ranks * width] the members' whole gradients, one after the other
    at::Tensor mine = {};               // [width] of the sums
    at::Tensor rows = {}, got = {};     // under way: [ranks, width], what becomes this rank's row
    dist::Pending pending = {};
  };
  void make_buckets(model::Llama& llama, int64_t most);
  void make_room(Bucket& bucket) const;
  void start_next();
  void start(Bucket& bucket) const;
  void finish(Bucket& bucket) const;
  void spread_values() const;
  [[nodiscard]] int64_t ranks() const { return sliced() ? group_.size() : 1; }

  Gradients kind_;
  dist::Group& group_;
  std::vector<Slice> slices_;
  std::vector<Bucket> buckets_;
  size_t begun_ = 0, finished_ = 0;  // buckets of this step, or with sliced_by_unit of this micro-batch
  bool last_ = false;
};

}  // namespace longlora::train

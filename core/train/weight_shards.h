// A model's weights cut up over the ranks (parallel.shard: model): each keeps its slices, and a unit of the model (its embedding, a
// layer, its head) is gathered before it is computed with, one unit ahead, and dropped after (FSDP: Zhao et al. 2023).
//
// Frozen weights are cut as bytes, a stacked matrix as a whole. With tune.mode full the parameters are cut like their master
// copies, from which their slices are made anew after every step. What LoRA trains beside its matrices stays on every rank.
#pragma once
#include <ATen/ATen.h>

#include <vector>

#include "core/dist/group.h"
#include "core/model/llama.h"
#include "core/model/memory.h"

namespace longlora::train {

class WeightShards {
 public:
  // `trained`: also what is trained is cut up.
  WeightShards(model::Llama& llama, const model::Cut& cut, bool trained);

  // Keeps this rank's slices of a unit that has its weights, and drops its memory. Before, what is to stay must be trainable; what
  // is trained and cut up gets its whole gradients from elsewhere from now on (core/train/trained.h).
  void take(size_t unit);
  // The ranks' group, before any use of the model.
  void connect(dist::Group& group) { group_ = &group; }

  // As in core/model/unit_watcher.h; on all ranks the same.
  void needed(size_t unit, size_t next);
  void done(size_t unit);
  // The slices of what is trained from their master copies.
  void refresh();

  // Bytes of a slice of frozen weights.
  [[nodiscard]] static int64_t slice_bytes(int64_t whole, int ranks);
  // Bytes of this rank's slices, and of what is gathered or on its way.
  [[nodiscard]] int64_t kept_bytes() const;
  [[nodiscard]] int64_t gathered_bytes() const;

 private:
  // Bytes [begin, begin + bytes) of the storage are cut in slices of `each`, which stand at `column` of a row.
  struct Piece {
    c10::Storage storage;
    int64_t begin, bytes, each, column;
    const model::Parameter* trained;
  };
  struct Unit {
    std::vector<model::Extent> memory;
    std::vector<Piece> pieces;
    int64_t width = 0;  // bytes of a row: a rank's slices of all pieces, one after the other
    at::Tensor mine;    // [width]
    at::Tensor all;     // under way: [ranks, width]
    dist::Pending pending;
    [[nodiscard]] bool held() const { return memory.front().held(); }
  };
  void add(Unit& unit, Piece piece) const;
  void start(Unit& unit);
  void put_in_place(Unit& unit) const;

  std::vector<std::vector<model::Parameter*>> parameters_;
  model::Cut cut_;
  bool trained_;
  dist::Group* group_ = nullptr;
  std::vector<Unit> units_;
};

}  // namespace longlora::train

#include "core/train/traffic.h"

#include "core/model/memory.h"
#include "core/train/weight_shards.h"

namespace longlora::train {
namespace {

// Elements of the slices of a unit's trained parameters, on `ranks` ranks.
int64_t sliced(const UnitSizes& unit, int ranks) {
  int64_t elements = 0;
  for (const int64_t numel : unit.trained) elements += model::Cut{.rank = 0, .ranks = ranks}.count(numel);
  return elements;
}

// Bytes of a rank's slices of a unit's weights, where they are cut up.
int64_t weight_bytes(const UnitSizes& unit, const StepShape& s) {
  int64_t bytes = s.full ? sliced(unit, s.ranks) * s.value : 0;
  for (const int64_t whole : unit.frozen) bytes += WeightShards::slice_bytes(whole, s.ranks);
  return bytes;
}

}  // namespace

std::vector<UnitSizes> unit_sizes(model::Llama& llama) {
  std::vector<UnitSizes> sizes;
  for (const auto& unit : llama.units()) {
    UnitSizes& all = sizes.emplace_back();
    std::vector<at::Tensor> frozen;
    for (const model::Parameter* p : unit) {
      if (p->trainable()) {
        all.trained.push_back(p->value.numel());
      } else {
        frozen.push_back(p->value);
      }
    }
    for (const model::Extent& memory : model::memory_under(frozen)) all.frozen.push_back(memory.bytes);
  }
  return sizes;
}

StepBytes step_bytes(std::span<const UnitSizes> units, const StepShape& s) {
  int64_t trained = 0;
  for (const UnitSizes& unit : units) trained += sliced(unit, s.shard == Shard::none ? 1 : s.ranks);
  if (s.shard == Shard::none) return {.all_reduce = trained * s.master, .reduce_scatter = 0, .all_gather = 0};
  StepBytes bytes{.all_reduce = 8, .reduce_scatter = trained * s.ranks * s.master, .all_gather = trained * s.value};
  if (s.shard == Shard::optimizer) return bytes;
  if (s.full) {
    bytes.reduce_scatter *= s.micro_batches;
    bytes.all_gather = 0;
  }
  int64_t gathered = gathered_bytes_of_forward(units, s);  // and the layers once more for the backward pass
  for (const UnitSizes& layer : units.subspan(1, units.size() - 2)) gathered += weight_bytes(layer, s);
  bytes.all_gather += s.micro_batches * gathered;
  return bytes;
}

int64_t gathered_bytes_of_forward(std::span<const UnitSizes> units, const StepShape& s) {
  if (s.shard != Shard::model) return 0;
  int64_t bytes = s.tied ? weight_bytes(units.front(), s) : 0;
  for (const UnitSizes& unit : units) bytes += weight_bytes(unit, s);
  return bytes;
}

}  // namespace longlora::train

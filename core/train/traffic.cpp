#include "core/train/traffic.h"

#include <algorithm>
#include <map>

#include "core/adapt/adapter_model.h"
#include "core/io/names.h"
#include "core/model/tensors.h"
#include "core/model/weights.h"
#include "core/train/weight_shards.h"

namespace longlora::train {
namespace {

// The first of the tensors that are stacked with this one (core/model/layer.cpp).
std::string stack_of(std::string tensor) {
  for (const auto& [part, first] : {std::pair{"k_proj", "q_proj"}, {"v_proj", "q_proj"}, {"up_proj", "gate_proj"}}) {
    const size_t at = tensor.find(part);
    if (at != std::string::npos) tensor.replace(at, std::string(part).size(), first);
  }
  return tensor;
}

}  // namespace

int64_t sliced(const UnitSizes& unit, int ranks) {
  int64_t elements = 0;
  for (const int64_t numel : unit.trained) elements += model::Cut{.rank = 0, .ranks = ranks}.count(numel);
  return elements;
}

int64_t sliced_weights(const UnitSizes& unit, const StepShape& s) {
  int64_t bytes = s.full ? sliced(unit, s.ranks) * s.value : 0;
  for (const int64_t whole : unit.frozen) bytes += WeightShards::slice_bytes(whole, s.ranks);
  return bytes;
}

bool trains_whole(const recipe::Tune& tune, const std::string& tensor) {
  using model::Kind;
  const Kind kind = tensor.ends_with("norm.weight") ? Kind::norm
                    : tensor == io::kEmbed          ? Kind::embed
                    : tensor == io::kHead           ? Kind::lm_head
                                                    : Kind::base;
  return adapt::trains(tune, kind);
}

bool adds_lora(const recipe::Tune& tune, const std::string& tensor) {
  if (tune.mode == "full" || !tensor.ends_with("proj.weight")) return false;
  const std::string target = io::last_part(io::module_of(tensor));
  return std::find(tune.targets.begin(), tune.targets.end(), target) != tune.targets.end();
}

std::vector<UnitSizes> unit_sizes(const model::Config& config, const recipe::Recipe& recipe) {
  const auto value = static_cast<int64_t>(c10::elementSize(model::parse_dtype(recipe.model.dtype)));
  std::vector<UnitSizes> units(static_cast<size_t>(config.layers) + 2);
  std::map<std::string, size_t> stacks;  // where they are among the frozen of their unit
  const auto freeze = [&](UnitSizes& unit, const std::string& name, int64_t bytes) {
    const auto [at, first] = stacks.try_emplace(stack_of(name), unit.frozen.size());
    if (first) unit.frozen.push_back(0);
    unit.frozen[at->second] += bytes;
  };
  model::for_each_tensor(config, [&](const std::string& name, const std::vector<int64_t>& shape) {
    size_t unit = name.starts_with("model.embed_tokens") ? 0 : units.size() - 1;
    const bool layer = name.starts_with("model.layers."), matrix = shape.size() == 2;
    if (layer) unit = std::stoul(name.substr(13)) + 1;
    const int64_t elements = matrix ? shape[0] * shape[1] : shape[0];
    if (trains_whole(recipe.tune, name)) {
      units[unit].trained.push_back(elements);
      return;
    }
    const bool packed = recipe.model.quantize == "nf4" && layer && matrix;
    freeze(units[unit], name, packed ? elements * kNf4Bytes / kNf4Elements : elements * value);
    if (!adds_lora(recipe.tune, name)) return;
    for (const int64_t size : shape) units[unit].trained.push_back(recipe.tune.rank * size);
  });
  return units;
}

StepBytes step_bytes(std::span<const UnitSizes> units, const StepShape& s) {
  int64_t trained = 0;
  for (const UnitSizes& unit : units) trained += sliced(unit, s.shard == Shard::none ? 1 : s.ranks);
  if (s.shard == Shard::none) return {.all_reduce = trained * s.master};
  StepBytes bytes{.all_reduce = 8, .reduce_scatter = trained * s.ranks * s.master, .all_gather = trained * s.value};
  if (s.shard == Shard::optimizer) return bytes;
  if (s.full) {
    bytes.reduce_scatter *= s.micro_batches;
    bytes.all_gather = 0;
  }
  int64_t gathered = gathered_bytes_of_forward(units, s);  // and the layers once more for the backward pass
  for (const UnitSizes& layer : units.subspan(1, units.size() - 2)) gathered += sliced_weights(layer, s);
  bytes.weights = s.micro_batches * gathered;
  bytes.all_gather += bytes.weights;
  return bytes;
}

double ring_bytes(const StepBytes& bytes, int64_t ranks) {
  const auto others = static_cast<double>(ranks - 1);
  const double share = others / static_cast<double>(ranks);
  return share * (2 * static_cast<double>(bytes.all_reduce) + static_cast<double>(bytes.reduce_scatter)) +
         others * static_cast<double>(bytes.all_gather);
}

int64_t gathered_bytes_of_forward(std::span<const UnitSizes> units, const StepShape& s) {
  if (s.shard != Shard::model) return 0;
  int64_t bytes = s.tied ? sliced_weights(units.front(), s) : 0;
  for (const UnitSizes& unit : units) bytes += sliced_weights(unit, s);
  return bytes;
}

}  // namespace longlora::train

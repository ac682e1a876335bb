#include "core/adapt/portable.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <map>
#include <set>

#include "core/adapt/adapted_config.h"
#include "core/base/error.h"
#include "core/base/signal.h"
#include "core/io/context_record.h"
#include "core/io/names.h"
#include "core/model/tensors.h"

namespace longlora::adapt {
namespace {

struct Part {
  const io::Adapter::LowRank* lora;
  double weight;
};
using Parts = std::vector<Part>;

// One pair of matrices, A [rank, in] and B [out, rank], that does what all `parts` do: the A stacked, the scaled B side by
// side, the rest zero.
std::pair<at::Tensor, at::Tensor> side_by_side(const Parts& parts, int64_t rank, int64_t out, int64_t in) {
  at::Tensor a = at::zeros({rank, in}, at::kFloat), b = at::zeros({out, rank}, at::kFloat);
  int64_t at = 0;
  for (const auto& [lora, weight] : parts) {
    a.narrow(0, at, lora->rank).copy_(model::as_tensor(lora->a));
    b.narrow(1, at, lora->rank).copy_(model::as_tensor(lora->b).to(at::kDouble).mul_(lora->scale * weight));
    at += lora->rank;
  }
  return {a, b};
}

struct Sorted {
  std::map<std::string, Parts> served;  // by module
  std::vector<std::string> left_out;
};

Sorted sort(const std::vector<io::Adapter>& adapters, const std::vector<WeightedAdapter>& weighted) {
  Sorted sorted;
  for (size_t i = 0; i < adapters.size(); ++i) {
    const io::Adapter& adapter = adapters[i];
    const std::string folder = adapter.folder().string();
    if (adapter.config().dora)
      usage_error("{}: DoRA cannot be written as plain LoRA; merge it into the model instead", folder);
    for (const auto& [module, lora] : adapter.low_rank()) {
      if (io::kLinear.contains(io::last_part(module)))
        sorted.served[module].push_back({&lora, weighted[i].weight});
      else
        sorted.left_out.push_back(fmt::format("LoRA of {} ({})", module, folder));
    }
    std::map<std::string, int64_t> whole;  // by what they are
    for (const auto& [name, view] : adapter.replaced()) {
      if (adapter.low_rank().contains(io::module_of(name))) continue;  // the base's own beside its LoRA
      ++whole[name.find("norm") != name.npos ? "norms" : name.find("embed") != name.npos ? "the embedding" : name];
    }
    for (const auto& [what, count] : whole)
      sorted.left_out.push_back(fmt::format("{} trained whole: {} tensors ({})", what, count, folder));
  }
  if (sorted.served.empty())
    usage_error("the adapters hold no LoRA on attention or MLP: nothing would be left to write");
  return sorted;
}

}  // namespace

PortableReport write_portable(const MergeOptions& options) {
  check_folders(options);
  const io::TensorStore base(options.model);
  std::vector<io::Adapter> adapters;
  AdaptOptions how{.other_bases = true, .brings_context = {}};
  for (const WeightedAdapter& adapter : options.adapters) {
    adapters.emplace_back(adapter.folder);
    how.brings_context.push_back(adapter.weight > 0);
  }
  const AdaptedConfig adapted = adapted_config(model::read_config(options.model), base, adapters, how);
  const Sorted sorted = sort(adapters, options.adapters);

  PortableReport report;
  report.left_out = sorted.left_out;
  std::set<std::string> targets;
  for (const auto& [module, parts] : sorted.served) {
    int64_t rank = 0;
    for (const Part& part : parts) rank += part.lora->rank;
    report.rank = std::max(report.rank, rank);
    targets.insert(io::last_part(module));
  }
  // Every layer gets a pair, zero where no adapter has one: readers expect the targets everywhere.
  std::vector<io::TensorSource> sources;
  for (const auto& [name, view] : base.tensors()) {
    if (!name.ends_with(".weight")) continue;
    const std::string module = io::module_of(name);
    if (!targets.contains(io::last_part(module))) continue;
    leave_if_stopped();
    const auto found = sorted.served.find(module);
    const Parts parts = found == sorted.served.end() ? Parts{} : found->second;
    const auto [a, b] = side_by_side(parts, report.rank, view.shape[0], view.shape[1]);
    sources.push_back(model::source(io::lora_a_name(module), a, at::kFloat));
    sources.push_back(model::source(io::lora_b_name(module), b, at::kFloat));
    ++report.modules;
  }
  io::AdapterConfig config;
  config.rank = report.rank;
  config.alpha = static_cast<double>(report.rank);
  config.targets = {targets.begin(), targets.end()};
  config.base_model = adapters.front().config().base_model;

  leave_if_stopped();
  AtomicFolder out(options.out, options.overwrite);
  io::write_safetensors(out.path() / "adapter_model.safetensors", std::move(sources));
  io::write_adapter_config(config, out.path() / "adapter_config.json");
  if (!adapted.whence.empty()) {
    io::ContextRecord record = io::read_context_record(fs::path(adapted.whence).parent_path()).value();
    record.stacked_on.clear();                                       // what it stood on is in it
    if (record.recipe.is_object()) record.recipe.erase("residual");  // an extracted adapter's, which this one is not
    io::write_context_record(record, out.path());
    report.rope = model::rope_to_json(adapted.config.rope).dump();
  }
  (void)io::Adapter(out.path());  // read back
  out.commit();
  return report;
}

}  // namespace longlora::adapt

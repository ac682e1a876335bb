#include "core/adapt/adapter_model.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "core/adapt/low_rank.h"
#include "core/base/error.h"
#include "core/io/names.h"
#include "core/model/tensors.h"

namespace longlora::adapt {
namespace {

using model::Kind;
using model::Parameter;

constexpr std::string_view kA = ".lora_A.weight", kB = ".lora_B.weight";

std::string module_of(const std::string& name) {
  return name.substr(0, name.size() - kA.size());
}

std::string module_of_weight(const std::string& name) {
  constexpr std::string_view kWeight = ".weight";
  return name.ends_with(kWeight) ? name.substr(0, name.size() - kWeight.size()) : name;
}

// Kinds that the layers do not compute beside the weight: put into it when the adapter is attached.
bool folded(const io::Adapter::LowRank& lora) {
  return lora.embedding || lora.magnitude;
}

// The adapter's tensor for a trainable parameter; null when it has none.
const io::TensorView* find(const io::Adapter& adapter, const Parameter& p) {
  if (p.kind != Kind::lora) {
    const auto found = adapter.replaced().find(p.name);
    return found == adapter.replaced().end() ? nullptr : &found->second;
  }
  const auto found = adapter.low_rank().find(module_of(p.name));
  if (found == adapter.low_rank().end()) return nullptr;
  return p.name.ends_with(kA) ? &found->second.a : &found->second.b;
}

void check_shape(const at::Tensor& to, const io::TensorView& from, const std::string& name,
                 const io::Adapter& adapter) {
  if (to.sizes() != at::IntArrayRef(from.shape)) {
    input_error("{}: '{}' has shape {}, {} is needed", adapter.folder().string(), name, io::shape_text(from.shape),
                io::shape_text(to.sizes().vec()));
  }
}

void copy_checked(const at::Tensor& to, const io::TensorView& from, const std::string& name,
                  const io::Adapter& adapter) {
  check_shape(to, from, name, adapter);
  to.copy_(model::as_tensor(from));
}

void assign_checked(Parameter& to, const io::TensorView& from, const io::Adapter& adapter) {
  check_shape(to.value, from, to.name, adapter);
  to.assign(model::as_tensor(from));
}

// A run goes on from an adapter only under the same alpha / r: another one would change what it does.
void check_scale(const Parameter& b, const io::Adapter& adapter) {
  const double scale = adapter.low_rank().at(module_of(b.name)).scale;
  if (std::abs(scale - b.to_value) <= 1e-12 * scale) return;
  usage_error(
      "{}: was trained with alpha / r = {:.6g} for '{}', this run says {:.6g}; set tune.alpha and tune.rslora as it "
      "has",
      adapter.folder().string(), scale, module_of(b.name), b.to_value);
}

// Without the rows of an embedding that the model has no use for (Adapter::vocabulary).
io::TensorView by_vocabulary(const Parameter& p, const io::TensorView& view) {
  return p.kind == Kind::embed ? io::rows_of(view, 0, p.value.size(0)) : view;
}

// The adapter's new value for a weight, and, where `low_rank`, its change of it.
void put_in(Parameter& p, const io::Adapter& adapter, bool low_rank) {
  if (const io::TensorView* view = find(adapter, p)) copy_checked(p.value, by_vocabulary(p, *view), p.name, adapter);
  const auto found = adapter.low_rank().find(module_of_weight(p.name));
  if (found == adapter.low_rank().end() || !low_rank) return;
  at::Tensor w = p.value.to(at::kCPU, at::kFloat, /*non_blocking=*/false, /*copy=*/true).contiguous();
  const WeightedLowRank part{&found->second};
  add_low_rank(w, {&part, 1}, 0, w);
  rescale_rows(w, found->second, 0);
  p.value.copy_(w);
}

std::vector<Kind> kinds_of(const std::vector<std::string>& also) {
  std::vector<Kind> kinds;
  for (const std::string& name : also) {
    kinds.push_back(name == "embed" ? Kind::embed : name == "norm" ? Kind::norm : Kind::lm_head);
  }
  return kinds;
}

}  // namespace

void attach(model::Llama& llama, const io::Adapter& adapter) {
  llama.add_lora(
      [&](const std::string& module) -> std::optional<model::LoraShape> {
        const auto found = adapter.low_rank().find(module);
        if (found == adapter.low_rank().end() || folded(found->second)) return std::nullopt;
        return model::LoraShape{found->second.rank, found->second.scale};
      },
      0, 0);
  for (Parameter* p : llama.parameters()) {
    if (p->kind == Kind::lora) {
      assign_checked(*p, *find(adapter, *p), adapter);
      continue;
    }
    const auto found = adapter.low_rank().find(module_of_weight(p->name));
    put_in(*p, adapter, found != adapter.low_rank().end() && folded(found->second));
  }
}

void fold_in(model::Llama& llama, const io::Adapter& adapter) {
  for (Parameter* p : llama.parameters()) fold_in(*p, adapter);
}

void fold_in(Parameter& parameter, const io::Adapter& adapter) {
  put_in(parameter, adapter, true);
}

bool trains(const recipe::Tune& tune, Kind kind) {
  const std::vector<Kind> kinds = kinds_of(tune.also);
  return tune.mode == "full" || std::find(kinds.begin(), kinds.end(), kind) != kinds.end();
}

void make_trainable(model::Llama& llama, const recipe::Tune& tune, uint64_t seed) {
  if (tune.mode == "full") {
    llama.train_everything();
    return;
  }
  const double rank = static_cast<double>(tune.rank);
  const model::LoraShape shape{tune.rank, tune.rslora ? tune.alpha / std::sqrt(rank) : tune.alpha / rank};
  const std::set<std::string> targets(tune.targets.begin(), tune.targets.end());
  llama.add_lora(
      [&](const std::string& module) {
        return targets.contains(io::last_part(module)) ? std::optional(shape) : std::nullopt;
      },
      tune.dropout, seed);
  llama.train_kinds(kinds_of(tune.also));
}

void load_trained(model::Llama& llama, const io::Adapter& adapter) {
  if (adapter.config().dora) {
    input_error("{}: is a DoRA adapter, which can be evaluated and merged but not trained further; merge it first",
                adapter.folder().string());
  }
  size_t used = 0;
  for (Parameter* p : llama.trainable()) {
    const io::TensorView* view = find(adapter, *p);
    if (view == nullptr)
      input_error("{}: holds nothing for '{}', which this run trains", adapter.folder().string(), p->name);
    assign_checked(*p, by_vocabulary(*p, *view), adapter);
    if (p->kind == Kind::lora && p->name.ends_with(kB)) check_scale(*p, adapter);
    ++used;
  }
  const bool head_written_twice = llama.config().tie_embeddings && adapter.replaced().contains("lm_head.weight");
  const size_t there = 2 * adapter.low_rank().size() + adapter.replaced().size() - (head_written_twice ? 1 : 0);
  if (used != there) {
    input_error("{}: holds {} tensors, this run trains {} of them; tune.targets and tune.also must be the adapter's",
                adapter.folder().string(), there, used);
  }
}

void save_adapter(const std::filesystem::path& folder, model::Llama& llama, const recipe::Tune& tune,
                  const std::string& base_model, at::ScalarType type, const model::Whole& whole) {
  std::vector<std::string> also = tune.also;
  std::vector<io::TensorSource> sources;
  for (const Parameter* p : llama.trainable()) {
    sources.push_back(model::source(io::adapter_name(p->name), *p, p->kind == Kind::lora ? at::kFloat : type, whole));
    if (p->kind == Kind::embed && llama.config().tie_embeddings) {
      sources.push_back(model::source(io::adapter_name("lm_head.weight"), *p, type, whole));
      also.push_back("lm_head");
    }
  }
  io::write_safetensors(folder.empty() ? folder : folder / "adapter_model.safetensors", std::move(sources));
  if (folder.empty()) return;
  io::AdapterConfig config;
  config.rank = tune.rank;
  config.alpha = tune.alpha;
  config.rslora = tune.rslora;
  config.dropout = tune.dropout;
  config.targets = tune.targets;
  config.modules_to_save = io::saved_modules(also);
  config.base_model = base_model;
  io::write_adapter_config(config, folder / "adapter_config.json");
}

}  // namespace longlora::adapt

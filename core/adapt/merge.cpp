#include "core/adapt/merge.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>

#include "core/adapt/adapted_config.h"
#include "core/adapt/companions.h"
#include "core/adapt/low_rank.h"
#include "core/adapt/model_card.h"
#include "core/base/error.h"
#include "core/base/pages.h"
#include "core/base/signal.h"
#include "core/model/config.h"
#include "core/model/tensors.h"

namespace longlora::adapt {
namespace {

constexpr const char *kEmbed = "model.embed_tokens.weight", *kHead = "lm_head.weight";

// What the adapters do to one tensor of the base.
struct Change {
  struct Whole {
    const io::TensorView* values;
    double weight;
  };
  std::vector<WeightedLowRank> low_rank;
  std::vector<Whole> whole;
};

// One tensor of the result.
struct Plan {
  std::string name;
  io::TensorView base;
  Change change;
  at::ScalarType type;
};

// Rows [first, first + count) of `view` in float32, and of `otherwise` where the view has no such row.
at::Tensor values_of(const io::TensorView& view, const io::TensorView& otherwise, int64_t first, int64_t count) {
  const auto some = [&](const io::TensorView& from, int64_t begin, int64_t rows) {
    return model::as_tensor(io::rows_of(from, begin, rows)).to(at::kFloat, /*non_blocking=*/false, /*copy=*/true);
  };
  if (view.shape.empty()) return some(view, 0, 1);
  const int64_t have = std::clamp<int64_t>(view.shape[0] - first, 0, count);
  if (have == count) return some(view, first, count);
  return at::cat({some(view, first, have), some(otherwise, first + have, count - have)});
}

// Rows of the result, in float32.
at::Tensor changed_rows(const Plan& plan, int64_t first, int64_t count) {
  const Change& change = plan.change;
  const bool replaced = change.whole.size() == 1 && change.whole.front().weight == 1;
  at::Tensor w = values_of(replaced ? *change.whole.front().values : plan.base, plan.base, first, count);
  if (!replaced && !change.whole.empty()) {
    at::Tensor sum = at::zeros_like(w);  // differences first, so that those that cancel out leave the base as it was
    for (const Change::Whole& one : change.whole)
      sum.add_(values_of(*one.values, plan.base, first, count).sub_(w).mul_(one.weight));
    w.add_(sum);
  }
  add_low_rank(w, change.low_rank, first);
  for (const WeightedLowRank& one : change.low_rank) rescale_rows(w, *one.lora, first);
  return w;
}

void check_range(const Plan& plan, const at::Tensor& in, const at::Tensor& out) {
  if (plan.type != at::kHalf || in.scalar_type() == at::kHalf) return;
  if (in.isfinite().logical_and(out.isfinite().logical_not()).any().item<bool>()) {
    fail("tensor '{}' has values that float16 cannot hold; merge with --dtype bfloat16", plan.name);
  }
}

// Writes rows of one tensor of the result in its type.
void fill(const Plan& plan, int64_t first, std::span<std::byte> out) {
  if (stop_requested()) throw Error(Exit::interrupted, "stopped by a signal; nothing was written, run again");
  const c10::InferenceMode no_autograd;
  model::single_threaded();
  std::vector<int64_t> shape = plan.base.shape;
  if (!shape.empty()) {
    const auto row =
        static_cast<int64_t>(c10::elementSize(plan.type)) * c10::multiply_integers(shape.begin() + 1, shape.end());
    shape[0] = static_cast<int64_t>(out.size()) / row;
  }
  const int64_t count = shape.empty() ? 1 : shape[0];
  const io::TensorView rows = io::rows_of(plan.base, first, count);
  prefetch_pages(rows.bytes);
  const bool changed = !plan.change.low_rank.empty() || !plan.change.whole.empty();
  if (!changed && model::scalar_type(plan.base.dtype) == plan.type) {
    std::memcpy(out.data(), rows.bytes.data(), out.size());
  } else {
    const at::Tensor in = changed ? changed_rows(plan, first, count) : model::as_tensor(rows);
    at::Tensor result = at::from_blob(out.data(), shape, plan.type);
    result.copy_(in);
    check_range(plan, in, result);
  }
  release_pages(rows.bytes);
  for (const Change::Whole& one : plan.change.whole) release_pages(io::rows_of(*one.values, first, count).bytes);
}

std::map<std::string, Change> changes_of(const std::vector<io::Adapter>& adapters,
                                         const std::vector<WeightedAdapter>& weighted, const io::TensorStore& base) {
  std::map<std::string, Change> changes;
  for (size_t i = 0; i < adapters.size(); ++i) {
    const io::Adapter& adapter = adapters[i];
    const std::string folder = adapter.folder().string();
    const double weight = weighted[i].weight;
    for (const auto& [name, view] : adapter.replaced()) {
      auto& same = changes[name].whole;
      same.push_back({&view, weight});
      const bool resized = base.contains(name) && base.at(name).shape != view.shape;
      if (resized && (same.size() > 1 || weight != 1))
        usage_error("{}: brings '{}' in another size, which can only be taken whole, from one adapter", folder, name);
    }
    for (const auto& [module, lora] : adapter.low_rank()) {
      auto& same = changes[module + ".weight"].low_rank;
      same.push_back({&lora, weight});
      if (lora.magnitude && weight != 1)
        usage_error("{}: DoRA rescales '{}'; such a change can only be added whole (weight 1)", folder, module);
      if (same.size() > 1 && (lora.magnitude || same.front().lora->magnitude)) {
        input_error("{}: DoRA rescales '{}', which another adapter changes too; such changes cannot be added up",
                    folder, module);
      }
    }
  }
  return changes;
}

// An embedding of another base is not taken without being asked: it would undo what that base learnt.
void check_strangers(const MergeOptions& options, const AdaptedConfig& adapted,
                     const std::vector<io::Adapter>& adapters) {
  if (adapted.strangers.empty() || options.embed) return;
  for (const io::Adapter& adapter : adapters) {
    if (!adapter.replaced().contains(kEmbed) && !adapter.replaced().contains(kHead)) continue;
    usage_error(
        "{}, and {} brings an embedding or head trained whole there; say with --embed what becomes of it: skip (the "
        "model's own stays), replace (the adapter's is taken), overlap (the rows that both have are)",
        adapted.strangers.front(), adapter.folder().string());
  }
}

// The finished folder against what it should hold.
void check_result(const fs::path& folder, const std::vector<std::pair<std::string, std::vector<int64_t>>>& expected,
                  const model::Config& config) {
  const io::TensorStore written(folder);
  const model::Config again = model::read_config(folder);
  bool same = written.tensors().size() == expected.size() && again.rope == config.rope &&
              again.covered_length() == config.covered_length();
  for (const auto& [name, shape] : expected) same = same && written.contains(name) && written.at(name).shape == shape;
  if (!same) fail("{}: read back after writing, the folder is not what was written", folder.string());
}

}  // namespace

void check_folders(const MergeOptions& options) {
  if (options.adapters.empty()) usage_error("merge: give at least one --adapter");
  const auto plain = [](const fs::path& path) {  // no links, no trailing slash
    const fs::path whole = fs::weakly_canonical(path);
    return whole.has_filename() ? whole : whole.parent_path();
  };
  const auto holds = [&](const fs::path& outer, const fs::path& inner) {  // or is the same
    const fs::path o = plain(outer), i = plain(inner);
    return std::mismatch(o.begin(), o.end(), i.begin(), i.end()).first == o.end();
  };
  std::vector<fs::path> inputs = {options.model};
  for (const WeightedAdapter& adapter : options.adapters) inputs.push_back(adapter.folder);
  for (const fs::path& input : inputs) {
    if (!fs::is_directory(input)) input_error("{}: no such folder", input.string());
    if (holds(options.out, input)) {
      usage_error("{}: the output may not be or hold the input folder {}", options.out.string(), input.string());
    }
  }
}

MergeReport merge(const MergeOptions& options, const std::function<void(int64_t, int64_t)>& progress) {
  check_folders(options);
  const io::TensorStore base(options.model);
  std::vector<io::Adapter> adapters;
  AdaptOptions how{.other_bases = true, .brings_context = {}};
  for (const WeightedAdapter& adapter : options.adapters) {
    adapters.emplace_back(adapter.folder, options.embed.value_or(io::Vocabulary::whole));
    how.brings_context.push_back(adapter.weight > 0);
  }
  MergeReport report;
  const model::Config base_config = model::read_config(options.model);
  AdaptedConfig adapted = adapted_config(base_config, base, adapters, how);
  check_strangers(options, adapted, adapters);
  model::Config& config = adapted.config;
  if (options.dtype) config.dtype = std::string(io::torch_name_of(*options.dtype));
  report.notes = adapted.strangers;
  report.context =
      fmt::format("{} tokens, RoPE {}, from {}", config.covered_length(), model::name_of(config.rope.type),
                  adapted.whence.empty() ? fmt::format("{} (no adapter has a longlora.json)", options.model.string())
                                         : adapted.whence);
  std::map<std::string, io::TensorView> tensors = base.tensors();
  if (base_config.tie_embeddings) tensors.erase(kHead);        // a copy that old checkpoints hold
  if (base_config.tie_embeddings && !config.tie_embeddings) {  // the head becomes a matrix of its own
    tensors.emplace(kHead, base.at(kEmbed));
  }
  const std::map<std::string, Change> changes = changes_of(adapters, options.adapters, base);

  (void)at::get_num_threads();  // see model::single_threaded
  std::mutex lock;
  int64_t done = 0;
  std::vector<io::TensorSource> sources;
  std::vector<std::pair<std::string, std::vector<int64_t>>> expected;
  for (const auto& [name, view] : tensors) {
    if (name.ends_with(".rotary_emb.inv_freq")) continue;  // old checkpoints' buffers of the old RoPE settings
    const auto found = changes.find(name);
    const io::DType type = options.dtype.value_or(view.dtype);
    Plan plan{name, view, found == changes.end() ? Change{} : found->second, model::scalar_type(type)};
    if (name == kEmbed || name == kHead) {
      if (config.vocab_size > view.shape.at(0)) plan.base = *plan.change.whole.front().values;  // a larger vocabulary
      plan.base = io::rows_of(plan.base, 0, config.vocab_size);
    }
    report.low_rank += !plan.change.low_rank.empty();
    report.replaced += !plan.change.whole.empty();
    const std::vector<int64_t> shape = plan.base.shape;
    sources.push_back({name, type, shape, [&, plan = std::move(plan)](int64_t first, std::span<std::byte> rows) {
                         fill(plan, first, rows);
                         const std::lock_guard hold(lock);
                         progress(done += static_cast<int64_t>(rows.size()), report.bytes);
                       }});
    report.bytes += io::byte_count(sources.back());
    expected.emplace_back(name, shape);
  }
  report.tensors = static_cast<int64_t>(sources.size());

  AtomicFolder out(options.out, options.overwrite);
  io::write_sharded(out.path(), std::move(sources), options.max_shard_bytes);
  model::write_config(config, out.path() / "config.json");
  copy_companions(options.model, out.path(), config.covered_length());
  write_model_card(options, adapted, base, out.path());
  check_result(out.path(), expected, config);
  if (options.check) options.check(out.path());
  out.commit();
  return report;
}

}  // namespace longlora::adapt

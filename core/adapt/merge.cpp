#include "core/adapt/merge.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstring>
#include <map>

#include "core/adapt/adapted_config.h"
#include "core/adapt/companions.h"
#include "core/adapt/low_rank.h"
#include "core/base/error.h"
#include "core/base/signal.h"
#include "core/io/adapter.h"
#include "core/model/config.h"
#include "core/model/tensors.h"

namespace longlora::adapt {
namespace {

constexpr int64_t kWorkElements = int64_t{1} << 24;  // of a matrix computed at once, in float32: 64 MiB

// What happens to one tensor of the base.
struct Change {
  const io::TensorView* replacement = nullptr;
  std::vector<const io::Adapter::LowRank*> low_rank;
};

// Writes one tensor of the result in its output type.
void fill(const io::TensorView& from, const std::vector<const io::Adapter::LowRank*>& low_rank, at::ScalarType type,
          std::span<std::byte> out) {
  if (stop_requested()) throw Error(Exit::interrupted, "stopped by a signal; nothing was written, run again");
  const at::Tensor in = model::as_tensor(from);
  if (low_rank.empty() && in.scalar_type() == type) {
    std::memcpy(out.data(), from.bytes.data(), out.size());
    return;
  }
  at::Tensor result = at::from_blob(out.data(), from.shape, type);
  if (low_rank.empty()) {
    result.copy_(in);
    return;
  }
  const int64_t step = std::max<int64_t>(1, kWorkElements / std::max<int64_t>(1, in.size(1)));
  for (int64_t first = 0; first < in.size(0); first += step) {
    const int64_t rows = std::min(step, in.size(0) - first);
    at::Tensor w = in.narrow(0, first, rows).to(at::kFloat, /*non_blocking=*/false, /*copy=*/true);
    for (const io::Adapter::LowRank* lora : low_rank) apply_low_rank(w, *lora, first);
    result.narrow(0, first, rows).copy_(w);
  }
}

std::map<std::string, Change> changes_of(const std::vector<io::Adapter>& adapters) {
  std::map<std::string, Change> changes;
  for (const io::Adapter& adapter : adapters) {
    for (const auto& [name, view] : adapter.replaced()) {
      const io::TensorView*& place = changes[name].replacement;
      if (place != nullptr) {
        input_error("{}: replaces '{}', and so does another of the adapters; they cannot be added up",
                    adapter.folder().string(), name);
      }
      place = &view;
    }
    for (const auto& [module, lora] : adapter.low_rank()) {
      auto& same = changes[module + ".weight"].low_rank;
      same.push_back(&lora);
      if (same.size() > 1 && (lora.magnitude || same.front()->magnitude)) {
        input_error("{}: DoRA rescales '{}', which another adapter changes too; such changes cannot be added up",
                    adapter.folder().string(), module);
      }
    }
  }
  return changes;
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
  std::vector<fs::path> inputs = options.adapters;
  inputs.push_back(options.model);
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
  for (const fs::path& folder : options.adapters) adapters.emplace_back(folder);
  MergeReport report;
  const model::Config base_config = model::read_config(options.model);
  auto [config, whence] = adapted_config(base_config, base, adapters);
  if (options.dtype) config.dtype = std::string(io::torch_name_of(*options.dtype));
  report.context =
      fmt::format("{} tokens, RoPE {}, from {}", config.covered_length(), model::name_of(config.rope.type),
                  whence.empty() ? fmt::format("{} (no adapter has a longlora.json)", options.model.string()) : whence);
  std::map<std::string, io::TensorView> tensors = base.tensors();
  if (base_config.tie_embeddings) tensors.erase("lm_head.weight");  // a copy that old checkpoints hold
  if (base_config.tie_embeddings && !config.tie_embeddings) {       // the head becomes a matrix of its own
    tensors.emplace("lm_head.weight", base.at("model.embed_tokens.weight"));
  }
  const std::map<std::string, Change> changes = changes_of(adapters);

  int64_t done = 0;
  std::vector<io::TensorSource> sources;
  std::vector<std::pair<std::string, std::vector<int64_t>>> expected;
  for (const auto& [name, view] : tensors) {
    if (name.ends_with(".rotary_emb.inv_freq")) continue;  // old checkpoints' buffers of the old RoPE settings
    const at::ScalarType stored = model::scalar_type(view.dtype);
    if (!at::isFloatingType(stored)) {
      input_error("{}: tensor '{}' is {}; the unquantized checkpoint is needed", options.model.string(), name,
                  io::name_of(view.dtype));
    }
    const auto found = changes.find(name);
    const Change change = found == changes.end() ? Change{} : found->second;
    const bool vocabulary = name == "model.embed_tokens.weight" || name == "lm_head.weight";
    io::TensorView from = change.replacement != nullptr ? *change.replacement : view;
    if (vocabulary) from = io::first_rows(from, config.vocab_size);
    const io::DType type = options.dtype.value_or(view.dtype);
    report.low_rank += !change.low_rank.empty();
    report.replaced += change.replacement != nullptr;
    sources.push_back({name, type, from.shape, [&, from, low_rank = change.low_rank, type](std::span<std::byte> out) {
                         fill(from, low_rank, model::scalar_type(type), out);
                         progress(done += static_cast<int64_t>(out.size()), report.bytes);
                       }});
    report.bytes += io::byte_count(sources.back());
    expected.emplace_back(name, from.shape);
  }
  report.tensors = static_cast<int64_t>(sources.size());

  AtomicFolder out(options.out, options.overwrite);
  io::write_sharded(out.path(), std::move(sources), options.max_shard_bytes);
  model::write_config(config, out.path() / "config.json");
  copy_companions(options.model, out.path(), config.covered_length());
  check_result(out.path(), expected, config);
  out.commit();
  return report;
}

}  // namespace longlora::adapt

#include "core/adapt/merge.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <mutex>
#include <optional>

#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "core/adapt/adapted_config.h"
#include "core/adapt/companions.h"
#include "core/adapt/low_rank.h"
#include "core/adapt/model_card.h"
#include "core/adapt/open_model.h"
#include "core/base/error.h"
#include "core/base/pages.h"
#include "core/base/signal.h"
#include "core/io/names.h"
#include "core/model/config.h"
#include "core/model/tensors.h"

namespace longlora::adapt {
namespace {

using io::kEmbed, io::kHead;

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
  add_low_rank(w, change.low_rank, first, w);
  for (const WeightedLowRank& one : change.low_rank) rescale_rows(w, *one.lora, first);
  return w;
}

// Values that are no numbers come from the base itself or are an error.
void check_finite(const Plan& plan, const at::Tensor& base, const at::Tensor& in, const at::Tensor& out) {
  if (std::isfinite(out.sum(at::kFloat).item<double>())) return;  // one pass, where all is well
  if (out.isfinite().all().item<bool>() || !base.isfinite().all().item<bool>()) return;
  if (!in.isfinite().all().item<bool>())
    fail("tensor '{}': with the adapters it has values that are no finite numbers; are they sound, and their weights?",
         plan.name);
  fail("tensor '{}' has values that {} cannot hold; merge with another --dtype", plan.name,
       io::torch_name_of(model::file_type(plan.type)));
}

bool only_adds(const Change& change) {
  const auto adds = [](const WeightedLowRank& one) { return !one.lora->magnitude; };
  return change.whole.empty() && !change.low_rank.empty() && std::ranges::all_of(change.low_rank, adds);
}

// Writes rows of one tensor of the result in its type.
void fill(const Plan& plan, int64_t first, std::span<std::byte> out) {
  if (stop_requested()) throw Stopped("stopped; nothing was written, run the same command again");
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
  const Change& change = plan.change;
  const bool changed = !change.low_rank.empty() || !change.whole.empty();
  const at::Tensor base = model::as_tensor(rows);
  at::Tensor result = at::from_blob(out.data(), shape, plan.type);
  if (!changed && base.scalar_type() == plan.type) {
    std::memcpy(out.data(), rows.bytes.data(), out.size());
  } else if (only_adds(change) && base.scalar_type() == plan.type && plan.type != at::kHalf) {
    add_low_rank(base, change.low_rank, first,
                 result);  // most of a model; nothing is in float32 for longer than a block
    check_finite(plan, base, result, result);
  } else {
    const at::Tensor in = changed ? changed_rows(plan, first, count) : base;
    result.copy_(in);
    check_finite(plan, base, in, result);
  }
  release_pages(rows.bytes);
  for (const Change::Whole& one : plan.change.whole) release_pages(io::rows_of(*one.values, first, count).bytes);
}

// Values can replace the base's; to be weighted or added up they must be a change, which they are against their own base only.
void check_whole(const std::map<std::string, Change>& changes, const std::vector<io::Adapter>& adapters,
                 const std::vector<WeightedAdapter>& weighted, const io::TensorStore& base,
                 const AdaptedConfig& adapted, bool overlap) {
  for (const auto& [name, change] : changes) {
    if (change.whole.size() < 2 && (change.whole.empty() || change.whole.front().weight == 1)) continue;
    for (const Change::Whole& one : change.whole) {
      if (!overlap && base.contains(name) && base.at(name).shape != one.values->shape)
        usage_error("the adapters bring '{}' in another size than the model's, which can only be taken whole, from one",
                    name);
    }
    for (size_t i = 0; i < adapters.size(); ++i) {
      if (!adapters[i].replaced().contains(name) || adapted.of_this_base[i]) continue;
      usage_error(
          "{}={}: brings '{}' as it was after training; what changed is known only against the base it was trained on, "
          "and its longlora.json does not say that this is {}",
          adapters[i].folder().string(), weighted[i].weight, name, base.path().string());
    }
  }
}

// What adapter i brings whole was trained on from what those that it stands on (AdaptedConfig::on) made of the tensor, so it
// takes the place of their changes. That has a meaning only where all of them count whole.
void drop_below(Change& change, size_t i, const std::string& name, const std::vector<io::Adapter>& adapters,
                const std::vector<WeightedAdapter>& weighted, const AdaptedConfig& adapted) {
  for (const size_t below : adapted.on[i]) {
    const auto whole = adapters[below].replaced().find(name);
    const auto lora = adapters[below].low_rank().find(io::module_of(name));
    const size_t dropped =
        std::erase_if(change.whole,
                      [&](const auto& one) {
                        return whole != adapters[below].replaced().end() && one.values == &whole->second;
                      }) +
        std::erase_if(change.low_rank, [&](const auto& one) {
          return lora != adapters[below].low_rank().end() && one.lora == &lora->second;
        });
    if (dropped > 0 && (weighted[i].weight != 1 || weighted[below].weight != 1)) {
      usage_error("{}: brings '{}' as it was after training on from {}; the two can only be taken with weight 1 each",
                  adapters[i].folder().string(), name, adapters[below].folder().string());
    }
  }
}

std::map<std::string, Change> changes_of(const std::vector<io::Adapter>& adapters,
                                         const std::vector<WeightedAdapter>& weighted, const io::TensorStore& base,
                                         const AdaptedConfig& adapted, bool overlap) {
  std::map<std::string, Change> changes;
  for (size_t i = 0; i < adapters.size(); ++i) {
    const io::Adapter& adapter = adapters[i];
    const std::string folder = adapter.folder().string();
    const double weight = weighted[i].weight;
    for (const auto& [name, view] : adapter.replaced()) {
      drop_below(changes[name], i, name, adapters, weighted, adapted);
      changes[name].whole.push_back({&view, weight});
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
  check_whole(changes, adapters, weighted, base, adapted, overlap);
  return changes;
}

// An embedding of another base is not taken without being asked: it would undo what that base learnt.
void check_strangers(const MergeOptions& options, const AdaptedConfig& adapted,
                     const std::vector<io::Adapter>& adapters) {
  if (adapted.strangers.empty() || options.embed) return;
  for (const io::Adapter& adapter : adapters) {
    const bool brings = adapter.replaced().contains(kEmbed) || adapter.replaced().contains(kHead) ||
                        adapter.low_rank().contains(io::module_of(kEmbed)) ||
                        adapter.low_rank().contains(io::module_of(kHead));
    if (!brings) continue;
    usage_error(
        "{}, and {} brings an embedding or head trained there; say with --embed what becomes of it: skip (the "
        "model's own stays), replace (the adapter's is taken), overlap (the rows that both have are)",
        adapted.strangers.front(), adapter.folder().string());
  }
}

// Fewer rows than the model has would take tokens away from it.
void check_vocabulary(const MergeOptions& options, const AdaptedConfig& adapted, const model::Config& base) {
  const model::Config& config = adapted.config;
  if (config.vocab_size >= base.vocab_size) return;
  const bool known = std::ranges::all_of(adapted.of_this_base, [](bool own) { return own; });
  if (!options.embed && !known) {
    usage_error(
        "the adapter's embedding and head have {} rows, the model's {}; say with --embed what becomes of them: skip "
        "(the model's own stay), replace (the adapter's are taken), overlap (the rows that both have are)",
        config.vocab_size, base.vocab_size);
  }
  (void)open_tokenizer(options.model, config);  // must not have more tokens
}

// How far a model made of a base and what was extracted against it is from the fine-tune, as extract() measured it.
std::optional<std::string> distance_note(const MergeOptions& options, const AdaptedConfig& adapted) {
  const bool whole = options.adapters.size() == 1 && options.adapters.front().weight == 1 && adapted.of_this_base[0];
  if (!whole || options.embed.value_or(io::Vocabulary::whole) != io::Vocabulary::whole) return std::nullopt;
  const nlohmann::ordered_json& origin = adapted.records[0]->recipe;
  if (!origin.is_object() || !origin.contains("extracted_from") || !origin.contains("residual")) return std::nullopt;
  try {
    const double residual = origin.at("residual");
    const std::vector<std::string> left_out = origin.at("left_out");
    std::string note = fmt::format(
        "{} was extracted from '{}'; before rounding the result differs from that by {:.3g} % of its matrices' change "
        "(Frobenius norm)",
        options.adapters.front().folder.string(), origin.at("extracted_from").get<std::string>(), 100 * residual);
    if (!left_out.empty()) note += fmt::format("; not carried over: {}", fmt::join(left_out, "; "));
    return note;
  } catch (const nlohmann::ordered_json::exception& error) {
    input_error("{}: {}", (options.adapters.front().folder / io::kContextRecordFile).string(), error.what());
  }
}

// What is worth knowing of the result, a line each.
std::vector<std::string> notes_of(const MergeOptions& options, const AdaptedConfig& adapted,
                                  const std::vector<io::Adapter>& adapters, const model::Config& base) {
  std::vector<std::string> notes = adapted.strangers;
  for (size_t i = 0; i < adapters.size(); ++i) {
    const std::string folder = adapters[i].folder().string();
    if (!adapted.of_this_base[i] && !adapters[i].replaced().empty()) {
      notes.push_back(fmt::format("{}: {} tensors that it brings whole (norms, embedding, head) replace this model's",
                                  folder, adapters[i].replaced().size()));
    }
    if (options.adapters[i].weight < 0 && adapted.records[i])
      notes.push_back(fmt::format("{} is taken out; RoPE and context length stay as this model has them", folder));
    const auto embed = adapters[i].replaced().find(kEmbed);
    if (embed != adapters[i].replaced().end() && embed->second.shape[0] > adapted.config.vocab_size) {
      notes.push_back(fmt::format("{}: {} of its embedding's {} rows are taken, the head has no more", folder,
                                  adapted.config.vocab_size, embed->second.shape[0]));
    }
  }
  if (const auto note = distance_note(options, adapted)) notes.push_back(*note);
  if (adapted.config.vocab_size > base.vocab_size)
    notes.push_back(fmt::format("the vocabulary grew from {} to {} rows", base.vocab_size, adapted.config.vocab_size));
  return notes;
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

// Whether an adapter is given with a negative weight.
bool taken_out(const MergeOptions& options, const fs::path& folder) {
  return std::ranges::any_of(options.adapters, [&](const WeightedAdapter& one) {
    return one.weight < 0 && fs::equivalent(one.folder, folder);
  });
}

}  // namespace

void check_folders(const MergeOptions& options) {
  if (options.adapters.empty()) usage_error("merge: give at least one --adapter");
  for (size_t i = 0; i < options.adapters.size(); ++i) {
    for (size_t j = 0; j < i; ++j) {
      const WeightedAdapter &one = options.adapters[i], &other = options.adapters[j];
      std::error_code missing;  // which is said below
      if (one.weight == other.weight && fs::equivalent(one.folder, other.folder, missing))
        usage_error("{}: is given twice; for twice its change say {}={}", one.folder.string(), one.folder.string(),
                    2 * one.weight);
    }
  }
  // Without a slash at its end.
  const auto clean = [](const fs::path& path) { return path.has_filename() ? path : path.parent_path(); };
  const auto holds = [&](const fs::path& outer, const fs::path& inner) {  // or is the same
    const fs::path o = clean(fs::weakly_canonical(outer)), i = clean(fs::weakly_canonical(inner));
    return std::mismatch(o.begin(), o.end(), i.begin(), i.end()).first == o.end();
  };
  std::vector<fs::path> inputs = {options.model, fs::current_path()};
  for (const WeightedAdapter& adapter : options.adapters) inputs.push_back(adapter.folder);
  for (const fs::path& input : inputs) {
    if (!fs::is_directory(input)) input_error("{}: no such folder", input.string());
    if (holds(options.out, input)) {
      usage_error("{}: the output may not be or hold the folder {}", options.out.string(), input.string());
    }
  }
  if (options.overwrite && fs::exists(options.out)) {  // what is replaced must be something of this kind
    const fs::path& out = options.out;
    const bool folder = fs::is_directory(out) && !fs::is_symlink(clean(out));
    if (!folder || (!fs::is_empty(out) && !fs::exists(out / "config.json") && !fs::exists(out / "adapter_config.json")))
      usage_error("{}: is no folder of a model or adapter; --overwrite does not replace it", out.string());
  }
}

MergeReport merge(const MergeOptions& options, const std::function<void(int64_t, int64_t)>& progress) {
  check_folders(options);
  const io::TensorStore base(options.model);
  std::vector<io::Adapter> adapters;
  AdaptOptions how{.other_bases = true, .brings_context = {}};
  for (const WeightedAdapter& adapter : options.adapters) {
    adapters.emplace_back(adapter.folder, options.embed.value_or(io::Vocabulary::whole));
    how.brings_context.push_back(adapter.weight > 0 && !taken_out(options, adapter.folder));
  }
  MergeReport report;
  const model::Config base_config = model::read_config(options.model);
  AdaptedConfig adapted = adapted_config(base_config, base, adapters, how);
  check_strangers(options, adapted, adapters);
  check_vocabulary(options, adapted, base_config);
  model::Config& config = adapted.config;
  if (options.dtype) config.dtype = std::string(io::torch_name_of(*options.dtype));
  report.notes = notes_of(options, adapted, adapters, base_config);
  report.context =
      fmt::format("{} tokens, RoPE {}, from {}", config.covered_length(), model::name_of(config.rope.type),
                  adapted.whence.empty() ? fmt::format("{} (no adapter has a longlora.json)", options.model.string())
                                         : adapted.whence);
  std::map<std::string, io::TensorView> tensors = base.tensors();
  if (base_config.tie_embeddings) tensors.erase(kHead);        // a copy that old checkpoints hold
  if (base_config.tie_embeddings && !config.tie_embeddings) {  // the head becomes a matrix of its own
    tensors.emplace(kHead, base.at(kEmbed));
  }
  const std::map<std::string, Change> changes =
      changes_of(adapters, options.adapters, base, adapted, options.embed == io::Vocabulary::overlap);

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
  for (const io::Adapter& adapter : adapters) {  // the tokenizer that goes with the larger vocabulary
    if (config.vocab_size > base_config.vocab_size && text::Tokenizer::is_in(adapter.folder()))
      copy_companions(adapter.folder(), out.path(), config.covered_length());
  }
  write_model_card(options, adapted, adapters, out.path());
  check_result(out.path(), expected, config);
  if (options.check) options.check(out.path());
  out.commit();
  return report;
}

}  // namespace longlora::adapt

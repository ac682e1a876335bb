#include "core/adapt/verify.h"

#include <ATen/ATen.h>

#include <cmath>

#include "core/adapt/adapted_config.h"
#include "core/adapt/open_model.h"
#include "core/base/error.h"
#include "core/base/log.h"
#include "core/base/memory.h"
#include "core/io/context_record.h"

namespace longlora::adapt {
namespace {

constexpr int64_t kProbeTokens = 64;
constexpr std::string_view kProbe =
    "In the year 1843 Ada Lovelace wrote notes on a machine that had not been built. "
    "\"The engine,\" she said, \"can do whatever we know how to order it to perform\": "
    "f(x) = 3x^2 - 7, 12.50 %, a table, a line of code like return x;\n"
    "Elle n'\u00e9tait pas seule. \u4eca\u65e5\u306f\u3068\u3066\u3082\u9577\u3044\u8a71\u3067\u3059\u3002";

// The first tokens of the probe, or without a tokenizer ids spread over the vocabulary.
data::Batch probe_of(const OpenedModel& opened) {
  const auto vocabulary = static_cast<int32_t>(opened.llama->config().vocab_size);
  data::Batch batch{.rows = 1, .length = 0, .tokens = {}, .targets = {}, .positions = {}, .documents = {0}};
  if (opened.tokenizer) batch.tokens = opened.tokenizer->encode(kProbe);
  for (int32_t i = static_cast<int32_t>(batch.tokens.size()); i < kProbeTokens && !opened.tokenizer; ++i)
    batch.tokens.push_back(static_cast<int32_t>(int64_t{i} * 7919 % vocabulary));
  batch.tokens.resize(std::min<size_t>(batch.tokens.size(), kProbeTokens));
  batch.length = static_cast<int64_t>(batch.tokens.size());
  for (int32_t i = 0; i < batch.length; ++i) batch.positions.push_back(i);
  batch.targets.assign(batch.tokens.size(), data::kIgnore);
  batch.documents.push_back(batch.length);
  return batch;
}

at::Tensor logits_of(const OpenedModel& opened, const data::Batch& probe) {
  return opened.llama->logits(probe, {.group = 0, .backend = ops::AttentionBackend::automatic})
      .to(at::kCPU, at::kDouble);
}

// Why this merge cannot be compared, or "".
std::string reason_against(const MergeOptions& options, const std::filesystem::path& merged) {
  for (size_t i = 0; i < options.adapters.size(); ++i) {
    const auto record = io::read_context_record(options.adapters[i].folder);
    if (options.adapters[i].weight != 1 || (i > 0 && (!record || record->stacked_on.size() != i)))
      return "weighted adapters, and several that do not stand on each other, cannot be run without merging them";
  }
  if (options.embed && *options.embed != io::Vocabulary::whole)
    return "with --embed the merged model is another than base + adapter";
  const io::TensorStore store(merged);
  int64_t bytes = 0;
  for (const auto& [name, view] : store.tensors()) bytes += view.count() * int64_t{sizeof(float)};
  const int64_t free = available_memory();
  if (bytes > free / 2) {
    return fmt::format(
        "in float32 the model takes {:.1f} GB, of memory {:.1f} GB are free; eval-ppl can compare the two",
        static_cast<double>(bytes) / 1e9, static_cast<double>(free) / 1e9);
  }
  return "";
}

}  // namespace

Verification verify_merged(const MergeOptions& options, const std::filesystem::path& merged) {
  Verification result;
  result.left_out = reason_against(options, merged);
  if (!result.left_out.empty()) return result;
  OpenOptions how{.model = merged, .adapter = {}, .dtype = "float32", .device = "cpu", .other_bases = true, .rope = ""};
  data::Batch probe;
  at::Tensor ours, theirs;
  {
    const OpenedModel model = open_model(how);
    probe = probe_of(model);
    ours = logits_of(model, probe);
  }
  how.model = options.model;
  for (const WeightedAdapter& adapter : options.adapters) how.stacked.push_back(adapter.folder);
  theirs = logits_of(open_model(how), probe);
  const at::Tensor difference = ours - theirs;
  result.tokens = probe.length;
  result.largest = difference.abs().max().item<double>();
  result.relative = (difference.square().mean().sqrt() / theirs.square().mean().sqrt()).item<double>();
  constexpr double kMost = 0.1;
  if (!(result.relative <= kMost)) {
    fail(
        "{}: the merged model does not compute what base and adapter do: its logits differ by {:.3g} of their size "
        "(largest difference {:.3g}); nothing was kept. --no-verify merges regardless",
        options.out.string(), result.relative, result.largest);
  }
  return result;
}

}  // namespace longlora::adapt

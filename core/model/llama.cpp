#include "core/model/llama.h"

#include "core/base/error.h"
#include "core/base/random.h"
#include "core/base/signal.h"
#include "core/dist/group.h"
#include "core/model/memory.h"
#include "core/model/random_tensor.h"
#include "core/model/rope.h"
#include "core/ops/cross_entropy.h"
#include "core/ops/embedding.h"
#include "core/ops/rmsnorm.h"
#include "core/ops/sum_type.h"

namespace longlora::model {
namespace {

constexpr size_t kEmbed = 0;  // unit

std::vector<Extent> memory_under(const std::vector<Parameter*>& parameters) {
  std::vector<at::Tensor> values;
  for (const Parameter* p : parameters) values.push_back(p->value);
  return model::memory_under(values);
}

// The batch's integers as tensors on the CPU, without a copy: they live as long as the batch.
at::Tensor as_tensor(const std::vector<int32_t>& values) {
  return at::from_blob(const_cast<int32_t*>(values.data()), {static_cast<int64_t>(values.size())}, at::kInt);
}

}  // namespace

Llama::Llama(const Config& config, at::ScalarType dtype, at::Device device, bool bare)
    : config_(config), dtype_(dtype), device_(device), product_(ops::default_product(dtype, device)) {
  const auto made = [&](const std::vector<Parameter*>& parameters) {
    if (!bare) return;
    for (const Extent& memory : memory_under(parameters)) memory.drop();
  };
  const auto options = at::TensorOptions().dtype(dtype).device(device);
  embed_ = {.name = "model.embed_tokens.weight",
            .kind = Kind::embed,
            .value = at::empty({config.vocab_size, config.hidden}, options),
            .master = {},
            .grad = {}};
  norm_ = {.name = "model.norm.weight",
           .kind = Kind::norm,
           .value = at::empty({config.hidden}, options),
           .master = {},
           .grad = {}};
  if (!config.tie_embeddings) {
    lm_head_ = {.name = "lm_head.weight",
                .kind = Kind::lm_head,
                .value = at::empty({config.vocab_size, config.hidden}, options),
                .master = {},
                .grad = {}};
  }
  made(parameters());
  layers_.reserve(static_cast<size_t>(config.layers));
  for (int64_t i = 0; i < config.layers; ++i) made(layers_.emplace_back(config, i, options).parameters());
}

void Llama::initialize(uint64_t seed, const Ready& ready) {
  const double deviation = config_.initializer_range;
  const auto fill = [&](Parameter& p) {
    if (p.kind == Kind::norm) {
      p.value.fill_(1);
    } else if (p.name.ends_with(".bias")) {
      p.value.zero_();
    } else {
      const at::Tensor drawn = at::empty(p.value.sizes(), p.value.options().dtype(at::kFloat));
      fill_normal(drawn, deviation, derive_seed(seed, {name_hash(p.name)}));
      p.value.copy_(drawn);
    }
  };
  fill_units(fill, ready);
}

void Llama::fill_units(const std::function<void(Parameter&)>& fill, const Ready& ready) {
  const std::vector<std::vector<Parameter*>> all = units();
  for (size_t unit = 0; unit < all.size(); ++unit) {
    for (const Extent& memory : memory_under(all[unit])) {
      if (!memory.held()) memory.take();
    }
    for (Parameter* p : all[unit]) fill(*p);
    if (ready) ready(unit);
  }
}

void Llama::add_lora(const LoraFor& lora_for, double dropout, uint64_t seed) {
  for (Layer& layer : layers_) layer.add_lora(lora_for, dropout, seed);
}

void Llama::train_kinds(std::span<const Kind> kinds) {
  for (Parameter* p : parameters()) {
    if (std::find(kinds.begin(), kinds.end(), p->kind) != kinds.end()) p->make_trainable();
  }
}

void Llama::train_everything() {
  for (Parameter* p : parameters()) p->make_trainable();
}

std::vector<Parameter*> Llama::parameters() {
  std::vector<Parameter*> all = {&embed_};
  for (Layer& layer : layers_) {
    for (Parameter* p : layer.parameters()) all.push_back(p);
  }
  all.push_back(&norm_);
  if (!config_.tie_embeddings) all.push_back(&lm_head_);
  return all;
}

std::vector<Parameter*> Llama::trainable() {
  std::vector<Parameter*> some;
  for (Parameter* p : parameters()) {
    if (p->trainable()) some.push_back(p);
  }
  return some;
}

std::vector<std::vector<Parameter*>> Llama::units() {
  std::vector<std::vector<Parameter*>> all = {{&embed_}};
  for (Layer& layer : layers_) all.push_back(layer.parameters());
  all.push_back({&norm_});
  if (!config_.tie_embeddings) all.back().push_back(&lm_head_);
  return all;
}

void Llama::set_product(ops::ProductBackend backend) {
  product_ = backend;
  for (Layer& layer : layers_) layer.set_product(backend);
}

void Llama::set_cut(const Cut& cut) {
  for (Parameter* p : parameters()) p->cut = cut;
}

void Llama::begin(size_t unit, size_t next) const {
  watcher_ != nullptr ? watcher_->needed(unit, next) : leave_if_stopped();
}

void Llama::end(size_t unit) const {
  if (watcher_ != nullptr) watcher_->done(unit);
}

void Llama::begin_head(size_t next) const {
  if (config_.tie_embeddings) begin(kEmbed, kEmbed);
  begin(head_unit(), next);
}

void Llama::end_head() const {
  end(head_unit());
  if (config_.tie_embeddings) end(kEmbed);
}

void Llama::begin_gradients(size_t unit) const {
  if (watcher_ != nullptr) watcher_->filling(unit);
}

void Llama::end_gradients(size_t unit) const {
  if (watcher_ != nullptr) watcher_->filled(unit);
}

at::Tensor Llama::embedded(const data::Batch& batch) const {
  begin(kEmbed, 1);
  at::Tensor x = ops::embedding_forward(embed_.value, as_tensor(batch.tokens));  // [T, hidden]
  end(kEmbed);
  return x;
}

at::Tensor Llama::forward_backward(const data::Batch& batch, const AttentionPattern& pattern,
                                   std::span<const Recompute> recompute, double scale, const ops::Dropout& dropout) {
  const Pass pass = make_pass(batch, pattern, dropout);
  std::vector<Saved> saved(layers_.size());
  at::Tensor x = embedded(batch);
  for (size_t i = 0; i < layers_.size(); ++i) {
    begin(i + 1, i + 2);
    x = layers_[i].forward(x, pass, recompute[i], &saved[i]);
    end(i + 1);
  }

  begin_head(layers_.size());
  begin_gradients(head_unit());
  if (config_.tie_embeddings) begin_gradients(kEmbed);
  at::Tensor dx, losses;
  {  // the head's tensors are gone before the layers go back
    const ops::RmsNormed final = ops::rmsnorm_forward(x, norm_.value, config_.rms_eps);
    const ops::HeadLoss loss =
        ops::head_loss(final.y, head().value, as_tensor(batch.targets), product_, true, scale, head().grad);
    dx = ops::rmsnorm_backward(loss.dhidden, x, norm_.value, final.rstd, {}, norm_.grad);
    losses = loss.losses;
    x = at::Tensor();
  }
  end_head();
  end_gradients(head_unit());
  for (size_t i = layers_.size(); i-- > 0;) {
    begin(i + 1, std::max<size_t>(i, 1));  // the embedding's weights have no part in its backward pass
    begin_gradients(i + 1);
    dx = layers_[i].backward(dx, saved[i], pass);
    saved[i] = {};
    end(i + 1);
    end_gradients(i + 1);
  }
  begin_gradients(kEmbed);
  if (embed_.trainable()) ops::embedding_backward(dx, as_tensor(batch.tokens), embed_.grad);
  end_gradients(kEmbed);
  return losses;
}

at::Tensor Llama::of_hidden_states(const data::Batch& batch, const AttentionPattern& pattern,
                                   const std::function<at::Tensor(const at::Tensor&)>& head) const {
  const Pass pass = make_pass(batch, pattern, {});
  at::Tensor x = embedded(batch);
  for (size_t i = 0; i < layers_.size(); ++i) {
    begin(i + 1, i + 2);
    x = layers_[i].forward(x, pass, Recompute::everything, nullptr);
    end(i + 1);
  }
  begin_head(head_unit());
  at::Tensor result = head(ops::rmsnorm_forward(x, norm_.value, config_.rms_eps).y);
  end_head();
  return result;
}

at::Tensor Llama::token_losses(const data::Batch& batch, const AttentionPattern& pattern) const {
  return of_hidden_states(batch, pattern, [&](const at::Tensor& hidden) {
    return ops::head_loss(hidden, head().value, as_tensor(batch.targets), product_, false, 1, {}).losses;
  });
}

at::Tensor Llama::logits(const data::Batch& batch, const AttentionPattern& pattern) const {
  return of_hidden_states(batch, pattern,
                          [&](const at::Tensor& hidden) { return ops::product(hidden, head().value.t(), product_); });
}

KvCache Llama::make_cache(int64_t capacity) const {
  KvCache cache{.layers = {}, .length = 0, .capacity = capacity};
  for (size_t i = 0; i < layers_.size(); ++i) {
    const auto empty = [&] {
      return at::empty({capacity, config_.kv_heads, config_.head_dim}, embed_.value.options());
    };
    cache.layers.push_back({empty(), empty()});
  }
  return cache;
}

at::Tensor Llama::next_logits(std::span<const int32_t> tokens, KvCache& cache) const {
  constexpr int64_t kChunk = 2048;  // of a prompt at once: what a chunk needs besides the cache stays small
  const int64_t end = cache.length + static_cast<int64_t>(tokens.size());
  if (end > cache.capacity) fail("the cache holds {} tokens, {} are needed", cache.capacity, end);
  at::Tensor x;
  while (cache.length < end) {
    const int64_t n = std::min(kChunk, end - cache.length), whole[] = {0, n};
    Pass pass;
    pass.plan = ops::GroupPlan::full(whole, config_.heads, config_.kv_heads, config_.sliding_window);
    // A table of these tokens alone, by the length that is reached: dynamic and longrope change with it, as in transformers.
    pass.positions = at::arange(n, at::kInt).to(device_);
    pass.rotary = make_rotary(cache.length, n, end);
    const auto some = tokens.last(static_cast<size_t>(end - cache.length)).first(static_cast<size_t>(n));
    const at::Tensor ids = at::from_blob(const_cast<int32_t*>(some.data()), {n}, at::kInt);
    x = ops::embedding_forward(embed_.value, ids);
    for (size_t i = 0; i < layers_.size(); ++i) {
      if (n > 1) leave_if_stopped();
      x = layers_[i].forward_cached(x, pass, cache.layers[i], cache.length);
    }
    cache.length += n;
  }
  const at::Tensor last = ops::rmsnorm_forward(x.narrow(0, x.size(0) - 1, 1), norm_.value, config_.rms_eps).y;
  return ops::product(last, head().value.t(), product_).select(0, 0).to(at::kCPU, at::kFloat);
}

Pass Llama::make_pass(const data::Batch& batch, const AttentionPattern& pattern, const ops::Dropout& dropout) const {
  Pass pass;
  pass.plan =
      pattern.group > 0
          ? ops::GroupPlan::s2(batch.documents, pattern.group, config_.heads, config_.kv_heads, config_.sliding_window)
          : ops::GroupPlan::full(batch.documents, config_.heads, config_.kv_heads, config_.sliding_window);
  pass.positions = as_tensor(batch.positions).to(device_);
  pass.rotary = rotary_table(batch.length);
  pass.backend = pattern.backend;
  pass.dropout = dropout;
  pass.dropout.pieces = batch.pieces;
  if (pattern.sequence != nullptr) {
    pass.sequence = pattern.sequence;
    pass.share = dist::plan_sequence(pass.plan, dist::layout_of(pattern.group > 0), pass.sequence->rank(),
                                     pass.sequence->size());
    if (batch.pieces != pass.share.pieces) fail("the batch is cut otherwise than its ranks attend");
  }
  return pass;
}

// cos and sin of positions 0 ... length - 1, in float64 and rounded once. The laws that depend on the length
// of the sequence (dynamic, longrope) get the length of the row.
ops::RotaryTable Llama::rotary_table(int64_t length) const {
  if (table_length_ == length) return table_;
  table_ = make_rotary(0, length, length);
  table_length_ = length;
  return table_;
}

// The same of positions first ... first + count - 1, in a sequence of `length` tokens.
ops::RotaryTable Llama::make_rotary(int64_t first, int64_t count, int64_t length) const {
  const RopeFrequencies frequencies = model::frequencies(config_.rope, config_.head_dim, length);
  const at::Tensor inverse = at::tensor(frequencies.inverse, at::kDouble);
  const at::Tensor angle = at::outer(at::arange(first, first + count, at::kDouble), inverse);
  const auto type = ops::sum_type(dtype_);
  return {(angle.cos() * frequencies.attention).to(device_, type),
          (angle.sin() * frequencies.attention).to(device_, type)};
}

}  // namespace longlora::model

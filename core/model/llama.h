// The model: embedding, decoder layers, final norm, head; what is trained in it; and its three uses: a
// training micro-batch (loss and gradients), the loss of given tokens, and generation with a cache.
#pragma once
#include <ATen/ATen.h>

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/data/batch.h"
#include "core/model/config.h"
#include "core/model/layer.h"
#include "core/model/unit_watcher.h"

namespace longlora::model {

// How a batch attends.
struct AttentionPattern {
  int64_t group = 0;  // S2-Attn group in tokens; 0: full attention
  ops::AttentionBackend backend = ops::AttentionBackend::automatic;
  // Ranks that share the batch, each with its pieces of it (dist::pieces_of, dist::layout_of); null: none.
  dist::Group* sequence = nullptr;
};

struct KvCache {
  std::vector<LayerCache> layers;
  int64_t length = 0, capacity = 0;
};

class Llama {
 public:
  // Called with a unit that has got its weights.
  using Ready = std::function<void(size_t unit)>;

  // Uninitialised weights; fill them with initialize() or load_weights() (core/model/weights.h). `bare`: they have no memory
  // before, so that a model which is cut up as it is filled (Ready) is never there as a whole.
  Llama(const Config& config, at::ScalarType dtype, at::Device device, bool bare = false);

  // Random weights as transformers draws them: normal with config's initializer_range, norms one, biases
  // zero.
  void initialize(uint64_t seed, const Ready& ready = {});
  // `fill` on every parameter, unit by unit, each with memory under it; `ready` after each unit.
  void fill_units(const std::function<void(Parameter&)>& fill, const Ready& ready);

  // What is trained. Kinds: Kind::embed, Kind::norm, Kind::lm_head. A tied head is trained with the
  // embedding.
  void add_lora(const LoraFor& lora_for, double dropout, uint64_t seed);
  void train_kinds(std::span<const Kind> kinds);
  void train_everything();

  // One micro-batch: returns the loss of every token ([T] float32, 0 without target) and adds to the
  // gradients those of scale * sum(losses). `recompute` has one policy per layer.
  [[nodiscard]] at::Tensor forward_backward(const data::Batch& batch, const AttentionPattern& pattern,
                                            std::span<const Recompute> recompute, double scale,
                                            const ops::Dropout& dropout);

  // The loss of every token, [T] float32 (float64 for float64 models), 0 without target.
  [[nodiscard]] at::Tensor token_losses(const data::Batch& batch, const AttentionPattern& pattern) const;

  // The logits of every token, [T, vocab]; for small inputs.
  [[nodiscard]] at::Tensor logits(const data::Batch& batch, const AttentionPattern& pattern) const;

  // Generation: room for `capacity` tokens; then tokens go in (all of a prompt first, afterwards one at a
  // time) and the logits after the last come out, [vocab] float32.
  [[nodiscard]] KvCache make_cache(int64_t capacity) const;
  [[nodiscard]] at::Tensor next_logits(std::span<const int32_t> tokens, KvCache& cache) const;

  [[nodiscard]] const Config& config() const { return config_; }
  [[nodiscard]] at::ScalarType dtype() const { return dtype_; }
  [[nodiscard]] at::Device device() const { return device_; }
  [[nodiscard]] std::vector<Parameter*> parameters();
  [[nodiscard]] std::vector<Parameter*> trainable();
  // The parameters by unit (core/model/unit_watcher.h): embedding, layers, final norm and head. A tied head is the embedding.
  [[nodiscard]] std::vector<std::vector<Parameter*>> units();

  // Told of every use of a unit in forward_backward(), token_losses() and logits(); null: nobody.
  void watch(UnitWatcher* watcher) { watcher_ = watcher; }
  // How its products are computed from now on; before, as ops::default_product() says.
  void set_product(ops::ProductBackend backend);
  [[nodiscard]] ops::ProductBackend product() const { return product_; }
  // How master copies are cut from now on (make_trainable).
  void set_cut(const Cut& cut);

 private:
  [[nodiscard]] Pass make_pass(const data::Batch& batch, const AttentionPattern& pattern,
                               const ops::Dropout& dropout) const;
  [[nodiscard]] ops::RotaryTable rotary_table(int64_t length) const;
  [[nodiscard]] ops::RotaryTable make_rotary(int64_t first, int64_t count, int64_t length) const;
  [[nodiscard]] const Parameter& head() const { return config_.tie_embeddings ? embed_ : lm_head_; }
  [[nodiscard]] at::Tensor embedded(const data::Batch& batch) const;
  // What `head` makes of the normed states [T, hidden] of all tokens.
  [[nodiscard]] at::Tensor of_hidden_states(const data::Batch& batch, const AttentionPattern& pattern,
                                            const std::function<at::Tensor(const at::Tensor&)>& head) const;

  // For the watcher, around what computes with a unit; `next` is the one after it.
  void begin(size_t unit, size_t next) const;
  void end(size_t unit) const;
  void begin_head(size_t next) const;  // and the embedding, where it is the head
  void end_head() const;
  void begin_gradients(size_t unit) const;
  void end_gradients(size_t unit) const;
  [[nodiscard]] size_t head_unit() const { return layers_.size() + 1; }

  Config config_;
  at::ScalarType dtype_;
  at::Device device_;
  ops::ProductBackend product_;
  Parameter embed_, norm_, lm_head_;
  std::vector<Layer> layers_;
  UnitWatcher* watcher_ = nullptr;
  mutable int64_t table_length_ = 0;  // the rotary table of the last length asked for
  mutable ops::RotaryTable table_;
};

}  // namespace longlora::model

#include "core/model/weights.h"

#include <functional>
#include <set>

#include "core/base/error.h"
#include "core/base/progress.h"
#include "core/model/tensors.h"

namespace longlora::model {
namespace {

// Buffers that old checkpoints carry and the model computes itself.
bool ignored(const std::string& name) {
  return name.ends_with("rotary_emb.inv_freq");
}

}  // namespace

void for_each_tensor(const Config& c, const std::function<void(const std::string&, std::vector<int64_t>)>& take) {
  const int64_t q = c.heads * c.head_dim, kv = c.kv_heads * c.head_dim;
  take("model.embed_tokens.weight", {c.vocab_size, c.hidden});
  take("model.norm.weight", {c.hidden});
  if (!c.tie_embeddings) take("lm_head.weight", {c.vocab_size, c.hidden});
  const struct {
    const char* name;
    int64_t out, in;
    bool bias;
  } matrices[] = {
      {"self_attn.q_proj", q, c.hidden, c.attention_bias},     {"self_attn.k_proj", kv, c.hidden, c.attention_bias},
      {"self_attn.v_proj", kv, c.hidden, c.attention_bias},    {"self_attn.o_proj", c.hidden, q, c.attention_bias},
      {"mlp.gate_proj", c.intermediate, c.hidden, c.mlp_bias}, {"mlp.up_proj", c.intermediate, c.hidden, c.mlp_bias},
      {"mlp.down_proj", c.hidden, c.intermediate, c.mlp_bias}};
  for (int64_t i = 0; i < c.layers; ++i) {
    const std::string layer = fmt::format("model.layers.{}.", i);
    for (const char* norm : {"input_layernorm", "post_attention_layernorm"}) take(layer + norm + ".weight", {c.hidden});
    for (const auto& m : matrices) {
      take(layer + m.name + ".weight", {m.out, m.in});
      if (m.bias) take(layer + m.name + ".bias", {m.out});
    }
  }
}

void check_weights(const io::TensorStore& store, const Config& config) {
  const std::string folder = store.path().string();
  std::set<std::string> known = {"lm_head.weight"};  // beside tied embeddings some files have a copy
  for_each_tensor(config, [&](const std::string& name, const std::vector<int64_t>& shape) {
    if (!store.contains(name)) input_error("{}: tensor '{}' is missing", folder, name);
    const io::TensorView& view = store.at(name);
    if (view.shape != shape) {
      input_error("{}: tensor '{}' has shape {}, config.json says {}", folder, name, io::shape_text(view.shape),
                  io::shape_text(shape));
    }
    known.insert(name);
  });
  for (const auto& [name, view] : store.tensors()) {
    if (ignored(name)) continue;
    if (!known.contains(name)) {
      input_error("{}: tensor '{}' has no place in a {} with this config.json (bias settings? another architecture?)",
                  folder, name, config.architecture);
    }
    if (view.dtype != io::DType::f32 && view.dtype != io::DType::bf16 && view.dtype != io::DType::f16 &&
        view.dtype != io::DType::f64) {
      input_error("{}: tensor '{}' is {}; the unquantized checkpoint is needed", folder, name, io::name_of(view.dtype));
    }
  }
}

Llama load_llama(const io::TensorStore& store, const Config& config, at::ScalarType dtype, at::Device device) {
  Llama llama(config, dtype, device);
  load_weights(llama, store);
  return llama;
}

void load_weights(Llama& llama, const io::TensorStore& store, const Llama::Ready& ready) {
  Progress progress("loading", store.total_bytes(), "bytes");
  int64_t done = 0;
  const auto fill = [&](Parameter& p) {
    // A head that was tied in the file and is not in `config` starts from the embedding.
    const bool untied = p.kind == Kind::lm_head && !store.contains(p.name);
    const std::string name = untied ? "model.embed_tokens.weight" : p.name;
    const io::TensorView& view = store.at(name);
    done += static_cast<int64_t>(view.bytes.size());
    progress.update(done);
    const bool vocabulary = p.kind == Kind::embed || p.kind == Kind::lm_head;
    if (vocabulary && p.value.size(0) != view.shape.at(0)) {
      p.value.zero_();  // until the adapter that resizes the vocabulary brings it
      return;
    }
    p.value.copy_(as_tensor(view));
  };
  llama.fill_units(fill, ready);
}

std::string dtype_on_disk(const io::TensorStore& store) {
  return std::string(io::torch_name_of(store.at("model.embed_tokens.weight").dtype));
}

void save_llama(const std::filesystem::path& folder, Llama& llama, at::ScalarType dtype, const Whole& whole) {
  std::vector<io::TensorSource> sources;
  for (const Parameter* p : llama.parameters()) {
    if (p->kind != Kind::lora) sources.push_back(source(p->name, *p, dtype, whole));
  }
  io::write_sharded(folder, std::move(sources), int64_t{5'000'000'000});
  if (folder.empty()) return;
  Config config = llama.config();
  config.dtype = name_of(dtype);
  write_config(config, folder / "config.json");
}

}  // namespace longlora::model

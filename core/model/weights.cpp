#include "core/model/weights.h"

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

void check_nothing_left(const io::TensorStore& store, Llama& llama) {
  std::set<std::string> known;
  for (const Parameter* p : llama.parameters()) known.insert(p->name);
  if (llama.config().tie_embeddings) known.insert("lm_head.weight");
  for (const std::string& name : store.names()) {
    if (!known.contains(name) && !ignored(name)) {
      input_error("{}: tensor '{}' has no place in a {} with this config.json (bias settings? another architecture?)",
                  store.path().string(), name, llama.config().architecture);
    }
  }
}

}  // namespace

Llama load_llama(const io::TensorStore& store, const Config& config, at::ScalarType dtype, at::Device device) {
  const std::string folder = store.path().string();
  Llama llama(config, dtype, device);
  const auto parameters = llama.parameters();
  const bool resized = config.raw.value("vocab_size", config.vocab_size) != config.vocab_size;
  Progress progress("loading", store.total_bytes(), "bytes");
  int64_t done = 0;
  for (Parameter* p : parameters) {
    // A head that was tied in the file and is not in `config` starts from the embedding.
    const bool untied = p->kind == Kind::lm_head && !store.contains(p->name);
    const std::string name = untied ? "model.embed_tokens.weight" : p->name;
    if (!store.contains(name)) input_error("{}: tensor '{}' is missing", folder, name);
    const io::TensorView& view = store.at(name);
    done += static_cast<int64_t>(view.bytes.size());
    progress.update(done);
    if (resized && (p->kind == Kind::embed || p->kind == Kind::lm_head)) {
      p->value.zero_();  // until the adapter that resizes the vocabulary brings it
      continue;
    }
    if (p->value.sizes() != at::IntArrayRef(view.shape)) {
      input_error("{}: tensor '{}' has shape {}, config.json says {}", folder, p->name, io::shape_text(view.shape),
                  io::shape_text(p->value.sizes().vec()));
    }
    p->value.copy_(as_tensor(view));
  }
  check_nothing_left(store, llama);
  return llama;
}

void save_llama(const std::filesystem::path& folder, Llama& llama, at::ScalarType dtype) {
  std::vector<io::TensorSource> sources;
  for (const Parameter* p : llama.parameters()) {
    if (p->kind != Kind::lora) sources.push_back(source(p->name, p->trainable() ? p->master : p->value, dtype));
  }
  io::write_sharded(folder, std::move(sources), int64_t{5'000'000'000});
  write_config(llama.config(), folder / "config.json");
}

}  // namespace longlora::model

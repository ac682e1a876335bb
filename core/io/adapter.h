// PEFT's adapter folders: adapter_config.json and adapter_model.safetensors, read strictly and written so that old and
// new versions of PEFT read them.
//
// Names: PEFT puts "base_model.model." before the base's own tensor and module names. LoRA of a linear module M is
// M.lora_A.weight [r, in] and M.lora_B.weight [out, r], of an embedding M.lora_embedding_A [r, vocab] and
// M.lora_embedding_B [hidden, r]; DoRA adds M.lora_magnitude_vector [out]; weights trained whole (modules_to_save) stand
// under their own name, as new values. LongLoRA's own adapters are adapter_model.bin of the same names and
// trainable_params.bin of the weights trained whole, without PEFT's prefix.
#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/io/safetensors.h"
#include "core/io/torch_file.h"

namespace longlora::io {

struct AdapterConfig {
  int64_t rank = 8;
  double alpha = 8;
  bool rslora = false;
  bool dora = false;
  double dropout = 0;
  std::vector<std::string> targets;          // last components of module names: "q_proj"
  std::string target_pattern;                // instead of targets: a regular expression, or "all-linear"
  std::vector<std::string> modules_to_save;  // "embed_tokens"; matches every module whose name ends so
  std::vector<std::pair<std::string, int64_t>> rank_pattern;  // in the file's order: the first match counts
  std::vector<std::pair<std::string, double>> alpha_pattern;
  bool some_layers_only = false;  // layers_to_transform or exclude_modules: targets may lack LoRA in some layers
  std::string base_model;         // base_model_name_or_path

  // For the module with this name in the base ("model.layers.0.self_attn.q_proj").
  [[nodiscard]] int64_t rank_of(const std::string& module) const;
  [[nodiscard]] double scale_of(const std::string& module) const;  // alpha / r, rsLoRA alpha / sqrt(r)
};

// Exit 3 naming file and key: not LoRA, a variant that is not supported (DoRA, bias, ...), damaged values.
[[nodiscard]] AdapterConfig read_adapter_config(const fs::path& folder_or_file);

// Exactly the keys that every PEFT since 0.6 knows; the younger ones only where they are not at their default.
void write_adapter_config(const AdapterConfig& config, const fs::path& file);

// "model.norm.weight" -> "base_model.model.model.norm.weight"
[[nodiscard]] std::string adapter_name(const std::string& base_name);
[[nodiscard]] std::string lora_a_name(const std::string& module);
[[nodiscard]] std::string lora_b_name(const std::string& module);

// PEFT's modules_to_save for what a recipe calls embed, norm and lm_head.
[[nodiscard]] std::vector<std::string> saved_modules(const std::vector<std::string>& also);

// What becomes of the embedding and the head that an adapter brings.
enum class Vocabulary {
  whole,   // they must fit the base
  skip,    // they are left out: the base's stay
  overlap  // the rows that both have are taken, whatever their numbers
};

// An adapter folder, opened: every tensor has been given its place, every LoRA pair is whole and of its config's rank.
class Adapter {
 public:
  struct LowRank {
    TensorView a, b;
    int64_t rank;
    double scale;
    bool embedding;                       // a [r, vocab], b [hidden, r]; else a [r, in], b [out, r]
    std::optional<TensorView> magnitude;  // DoRA's, [out]

    [[nodiscard]] int64_t rows() const { return embedding ? a.shape[1] : b.shape[0]; }  // of the matrix that it changes
    [[nodiscard]] int64_t columns() const { return embedding ? b.shape[0] : a.shape[1]; }
  };

  // Exit 3 naming file and tensor: an unknown kind of tensor, half a pair, a rank that is not the config's. Pickles
  // (.bin) are read through core/io/torch_file.h where there is no safetensors file.
  explicit Adapter(const fs::path& folder, Vocabulary vocabulary = Vocabulary::whole);

  [[nodiscard]] const AdapterConfig& config() const { return config_; }
  [[nodiscard]] const fs::path& folder() const { return folder_; }
  // Tells adapters apart: by their tensors (model_fingerprint) and scales.
  [[nodiscard]] const std::string& fingerprint() const { return fingerprint_; }
  // By module of the base: "model.layers.0.self_attn.q_proj".
  [[nodiscard]] const std::map<std::string, LowRank>& low_rank() const { return low_rank_; }
  // By tensor of the base: "model.norm.weight".
  [[nodiscard]] const std::map<std::string, TensorView>& replaced() const { return replaced_; }

  // Whether a base with tied embeddings stays tied: neither embedding nor head is replaced, or both by the same values.
  // PEFT leaves a tied head on the base's values when an adapter brings an embedding alone.
  [[nodiscard]] bool keeps_tied() const;

  // Rows of embedding and head with this adapter on a base: the base's, or those of an adapter that brings both in another
  // number (a resized vocabulary). An embedding alone with rows beyond the base's (LongLoRA's [PAD], 32001 for 32000) keeps
  // the base's number: the head cannot produce such tokens. Exit 3 naming both numbers when they contradict each other.
  [[nodiscard]] int64_t vocabulary(const TensorStore& base) const;

  // Compares with the tensors of a base model. Exit 3 naming the first things that do not fit: a module or tensor that
  // the base lacks, another shape, a target or a promised module_to_save that the adapter lacks.
  void check_against(const TensorStore& base, bool tied_embeddings) const;

 private:
  void sort_in(const std::map<std::string, TensorView>& tensors);  // into low_rank_ and replaced_
  void leave_out_vocabulary();

  fs::path folder_;
  Vocabulary vocabulary_;
  AdapterConfig config_;
  std::optional<TensorStore> store_;  // what the views point into: this,
  std::vector<TorchFile> pickles_;    // or these
  std::map<std::string, LowRank> low_rank_;
  std::map<std::string, TensorView> replaced_;
  std::string fingerprint_;
};

}  // namespace longlora::io

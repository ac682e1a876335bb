// What a fine-tune changed, as an adapter: every matrix of the difference tuned - base by its leading singular vectors,
// embeddings and norms whole or in the same way, RoPE and context settings in longlora.json. merge() puts it back.
//
// One matrix at a time: the difference in float32 from both checkpoints, truncated_svd(), B = U sqrt(S), A = sqrt(S) V^T, so
// that both are of one size and the scale alpha / r is 1. The residual is computed from the factors as they are written.
// Finished factors are kept in `.NAME.extract` beside the output until the adapter is complete; a run that was stopped or
// killed goes on from there.
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "core/adapt/randomized_svd.h"
#include "core/io/safetensors.h"

namespace longlora::adapt {

enum class ExtractEmbed { whole, lora, skip };

struct ExtractOptions {
  std::filesystem::path base, tuned, out;
  SvdGoal goal = {};  // for every matrix; max_rank 0: no limit
  bool portable = false;
  std::vector<std::string> targets =
      {};  // patterns (* and ?) of linear modules or of the ends of their names; none: all
  ExtractEmbed embed = ExtractEmbed::whole;  // embedding and head
  bool norms = true;
  uint64_t seed = 42;
  io::DType dtype = io::DType::f32;  // of the factors
  bool overwrite = false;
};

// A matrix of which the adapter has a factorization; rank 0: it does not differ.
struct ExtractedMatrix {
  std::string module;  // "model.layers.0.self_attn.q_proj"
  std::vector<int64_t> shape;
  int64_t rank = 0;
  double norm = 0, residual = 0;  // Frobenius norms of the difference, and of what the written factors leave of it
  bool exact = false;             // from the Gram matrix
};

struct ExtractReport {
  std::vector<ExtractedMatrix> matrices;
  double norm = 0, residual = 0;             // as a matrix's, of all together
  int64_t rank = 0;                          // highest; the rank of all under --portable
  int64_t parameters = 0, bytes = 0;         // of the adapter, whole tensors included
  int64_t resumed = 0;                       // matrices that a run before this one had finished
  std::vector<std::string> whole;            // tensors stored as they are in the tuned model, by the base's names
  std::vector<std::string> left_out, notes;  // a line each
  std::string context;                       // one line: context and RoPE settings of the tuned model
};

// `progress` gets weights done and in all, and the module at work.
// Exit 2: `out` exists or is one of the inputs; a `.NAME.extract` of another command; an embedding that cannot be LoRA.
// Exit 3: models that do not fit together, naming the key or the tensor; nothing differs; values that are not finite.
// Exit 1: cannot write. Exit 75 at a signal. Whatever the error, finished matrices are kept.
ExtractReport extract(const ExtractOptions& options,
                      const std::function<void(int64_t done, int64_t total, const std::string& module)>& progress);

}  // namespace longlora::adapt

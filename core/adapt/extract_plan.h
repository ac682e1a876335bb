// What of two models goes into an extracted adapter, and how: decided from names, shapes and settings before anything is
// computed.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "core/adapt/extract.h"
#include "core/io/adapter.h"
#include "core/model/config.h"

namespace longlora::adapt {

struct ExtractPlan {
  struct Matrix {
    std::string module;
    io::TensorView base, tuned;
    bool embedding;  // LoRA as PEFT has it for embeddings
  };
  model::Config base, tuned;
  std::vector<Matrix> matrices;                 // to be factorized where they differ, by layer
  std::map<std::string, io::TensorView> whole;  // by the base's name: the tuned model's values
  std::vector<std::string> modules_to_save;     // that those belong to
  std::vector<std::string> left_out, notes;     // a line each
};

// Exit 2: embeddings that cannot be LoRA, a pattern that matches nothing. Exit 3: what does not fit together, named.
[[nodiscard]] ExtractPlan plan_extract(const ExtractOptions& options, const io::TensorStore& base,
                                       const io::TensorStore& tuned);

}  // namespace longlora::adapt

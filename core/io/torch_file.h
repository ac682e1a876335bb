// Files of tensors that torch.save wrote (adapter_model.bin, trainable_params.bin): the subset of pickle that a dictionary
// of tensors needs and nothing more, so that reading one never runs anything. LongLoRA's released adapters come this way.
#pragma once
#include <map>
#include <string>

#include "core/io/safetensors.h"
#include "core/io/zip_file.h"

namespace longlora::io {

class TorchFile {
 public:
  // Exit 3 naming the file and what is wrong: damaged, another byte order, or anything in it that is no tensor (the name
  // of what a Python program would have been asked to call is said).
  explicit TorchFile(const fs::path& path);

  [[nodiscard]] const std::map<std::string, TensorView>& tensors() const { return tensors_; }

 private:
  ZipFile zip_;
  std::map<std::string, TensorView> tensors_;
};

}  // namespace longlora::io

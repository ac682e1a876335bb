// Memory under tensors that comes and goes: tensors that share it (a stacked matrix and the views of its parts) stay what they
// are while there is none.
#pragma once
#include <ATen/ATen.h>

#include <vector>

namespace longlora::model {

// What lies under some tensors, each once, with the bytes up to the end of the last of them.
struct Extent {
  c10::Storage storage;
  int64_t bytes;

  void drop() const;  // nothing may read the tensors until take()
  void take() const;  // uninitialised
  [[nodiscard]] bool held() const { return storage.nbytes() > 0; }
};
[[nodiscard]] std::vector<Extent> memory_under(const std::vector<at::Tensor>& tensors);

[[nodiscard]] inline bool has_memory(const at::Tensor& tensor) {
  return tensor.storage().nbytes() > 0 || tensor.numel() == 0;
}

}  // namespace longlora::model

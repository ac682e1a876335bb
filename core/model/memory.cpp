#include "core/model/memory.h"

#include <algorithm>

namespace longlora::model {

void Extent::drop() const {
  c10::StorageImpl& impl = *storage.unsafeGetStorageImpl();
  impl.set_data_ptr_noswap(at::DataPtr(nullptr, impl.device()));
  impl.set_nbytes(size_t{0});
}

void Extent::take() const {
  c10::StorageImpl& impl = *storage.unsafeGetStorageImpl();
  impl.set_data_ptr_noswap(impl.allocator()->allocate(static_cast<size_t>(bytes)));
  impl.set_nbytes(static_cast<size_t>(bytes));
}

std::vector<Extent> memory_under(const std::vector<at::Tensor>& tensors) {
  std::vector<Extent> all;
  for (const at::Tensor& tensor : tensors) {
    int64_t last = tensor.storage_offset();
    for (int64_t d = 0; d < tensor.dim(); ++d) last += (tensor.size(d) - 1) * tensor.stride(d);
    const int64_t end = (last + 1) * static_cast<int64_t>(tensor.element_size());
    const auto known =
        std::find_if(all.begin(), all.end(), [&](const Extent& e) { return e.storage.is_alias_of(tensor.storage()); });
    if (known == all.end()) {
      all.push_back({tensor.storage(), end});
    } else {
      known->bytes = std::max(known->bytes, end);
    }
  }
  return all;
}

}  // namespace longlora::model

#include "core/model/random_tensor.h"

#include <ATen/CPUGeneratorImpl.h>
#include <xxhash.h>

namespace longlora::model {
namespace {

// A generator of the tensor's device with that seed.
at::Generator generator(const at::Tensor& tensor, uint64_t seed) {
  at::Generator made = tensor.is_cpu() ? at::detail::createCPUGenerator(seed)
                                       : at::globalContext().defaultGenerator(tensor.device()).clone();
  made.set_current_seed(seed);
  return made;
}

}  // namespace

void fill_uniform(const at::Tensor& tensor, double bound, uint64_t seed) {
  tensor.uniform_(-bound, bound, generator(tensor, seed));
}
void fill_normal(const at::Tensor& tensor, double deviation, uint64_t seed) {
  tensor.normal_(0, deviation, generator(tensor, seed));
}

uint64_t name_hash(std::string_view name) {
  return XXH3_64bits(name.data(), name.size());
}

}  // namespace longlora::model

#include "core/model/tensors.h"

#include <ATen/Parallel.h>

#include <cstring>

#include "core/base/error.h"

namespace longlora::model {

at::ScalarType scalar_type(io::DType dtype) {
  switch (dtype) {
    case io::DType::f64:
      return at::kDouble;
    case io::DType::f32:
      return at::kFloat;
    case io::DType::f16:
      return at::kHalf;
    case io::DType::bf16:
      return at::kBFloat16;
    case io::DType::i64:
      return at::kLong;
    case io::DType::i32:
      return at::kInt;
    case io::DType::i16:
      return at::kShort;
    case io::DType::i8:
      return at::kChar;
    case io::DType::u8:
      return at::kByte;
    case io::DType::boolean:
      return at::kBool;
    default:
      input_error("tensors of type {} cannot be computed with", io::name_of(dtype));
  }
}

io::DType file_type(at::ScalarType type) {
  switch (type) {
    case at::kDouble:
      return io::DType::f64;
    case at::kFloat:
      return io::DType::f32;
    case at::kHalf:
      return io::DType::f16;
    case at::kBFloat16:
      return io::DType::bf16;
    case at::kLong:
      return io::DType::i64;
    case at::kInt:
      return io::DType::i32;
    default:
      fail("tensors of type {} are not written", at::toString(type));
  }
}

at::ScalarType parse_dtype(const std::string& name) {
  if (name == "bfloat16") return at::kBFloat16;
  if (name == "float16") return at::kHalf;
  if (name == "float32") return at::kFloat;
  usage_error("unknown dtype '{}': auto, stored, bfloat16, float16 or float32",
              name);  // the first two: choose_compute()
}

std::string name_of(at::ScalarType type) {
  switch (type) {
    case at::kBFloat16:
      return "bfloat16";
    case at::kHalf:
      return "float16";
    case at::kFloat:
      return "float32";
    default:
      return "float64";
  }
}

at::Tensor as_tensor(const io::TensorView& view) {
  const at::ScalarType type = scalar_type(view.dtype);
  void* data = const_cast<std::byte*>(view.bytes.data());
  if (reinterpret_cast<uintptr_t>(data) % c10::elementSize(type) == 0) return at::from_blob(data, view.shape, type);
  at::Tensor copy = at::empty(view.shape, type);
  std::memcpy(copy.data_ptr(), data, view.bytes.size());
  return copy;
}

namespace {

// Rows of `tensor` from `first` on, as many as there is room for.
void fill_rows(const at::Tensor& tensor, at::ScalarType type, int64_t first, std::span<std::byte> out) {
  single_threaded();
  if (tensor.dim() == 0) {
    at::from_blob(out.data(), {}, type).copy_(tensor);
    return;
  }
  std::vector<int64_t> shape = tensor.sizes().vec();
  const int64_t row = tensor.numel() / shape[0] * static_cast<int64_t>(c10::elementSize(type));
  shape[0] = static_cast<int64_t>(out.size()) / row;
  at::from_blob(out.data(), shape, type).copy_(tensor.narrow(0, first, shape[0]));
}

}  // namespace

io::TensorSource source(const std::string& name, const at::Tensor& tensor, at::ScalarType type) {
  return {name, file_type(type), tensor.sizes().vec(),
          [tensor, type](int64_t first, std::span<std::byte> out) { fill_rows(tensor, type, first, out); }};
}

io::TensorSource source(const std::string& name, at::IntArrayRef shape, at::ScalarType type,
                        std::function<at::Tensor()> make) {
  const auto made = std::make_shared<at::Tensor>();
  return {.name = name,
          .dtype = file_type(type),
          .shape = shape.vec(),
          .fill = [made, type](int64_t first, std::span<std::byte> out) { fill_rows(*made, type, first, out); },
          .begin = [made, make = std::move(make)] { *made = make(); },
          .end = [made] { *made = at::Tensor(); }};
}

io::TensorSource source(const std::string& name, const Parameter& parameter, at::ScalarType type, const Whole& whole) {
  if (!whole) return source(name, parameter.trainable() ? parameter.master : parameter.value, type);
  return source(name, parameter.value.sizes(), type, [&parameter, whole] { return whole(parameter); });
}

void single_threaded() {
  thread_local bool set = false;
  if (!set) at::set_num_threads(1);
  set = true;
}

}  // namespace longlora::model

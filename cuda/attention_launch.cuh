// What the attention launchers share: checks, and the instance for an element type and head size.
#pragma once
#include <cstdint>
#include <string>
#include <type_traits>

#include "cuda/attention.h"
#include "cuda/launch_error.h"

namespace longlora::cuda {

inline void check_heads(const char* name, const void* data, int64_t token, int64_t head) {
  if (reinterpret_cast<uintptr_t>(data) % 16 == 0 && token % 8 == 0 && head % 8 == 0) return;
  throw LaunchError(std::string("attention: rows of ") + name + " are not aligned to 16 bytes (strides " +
                    std::to_string(token) + ", " + std::to_string(head) + ")");
}

// A window that reaches everything is none. (The kernels count distances between tokens in 32 bits.)
inline int64_t window_of(const AttentionShape& shape) {
  return shape.window < shape.tokens ? shape.window : 0;
}

// body(a value of the element type, an integral_constant of the head size)
template <class Body>
void for_type_and_size(const AttentionShape& shape, Body&& body) {
  if (shape.tokens < 0 || shape.tokens > 0x7fffffff) {
    throw LaunchError("attention: a batch of " + std::to_string(shape.tokens) + " tokens");
  }
  const auto with_size = [&](auto type) {
    switch (shape.head_size) {
      case 64:
        return body(type, std::integral_constant<int, 64>());
      case 128:
        return body(type, std::integral_constant<int, 128>());
      default:
        throw LaunchError("attention: head size " + std::to_string(shape.head_size) + "; 64 and 128 are built");
    }
  };
  switch (shape.element) {
    case Element::bfloat16:
      return with_size(bf16{});
    case Element::float16:
      return with_size(fp16{});
    default:
      throw LaunchError("attention: elements must be bfloat16 or float16");
  }
}

}  // namespace longlora::cuda

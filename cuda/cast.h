// Elements of one type written as another, rounded to nearest even, on the GPU. Bytes moved per element: both sizes.
#pragma once
#include <cstdint>

#include "cuda/types.h"

namespace longlora::cuda {

// n elements, contiguous. Accesses of 16 bytes where both pointers are multiples of 16. Throws LaunchError for a negative
// n or a launch that fails.
void cast(Element from_element, const void* from, Element to_element, void* to, int64_t n, Stream stream);

}  // namespace longlora::cuda

#include "core/ops/dropout.h"

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>

#include "core/base/random.h"
#include "core/ops/cuda_call.h"
#include "cuda/dropout.h"

namespace longlora::ops {
namespace {

// The finisher of MurmurHash3: 32 well-mixed bits of a row's key and a column.
constexpr uint32_t kFirst = 0x85ebca6bU, kSecond = 0xc2b2ae35U, kColumn = 0x9e3779b9U;

uint32_t mixed(uint32_t x) {
  x = (x ^ (x >> 16)) * kFirst;
  x = (x ^ (x >> 13)) * kSecond;
  return x ^ (x >> 16);
}

uint32_t row_key(const Dropout& stream, int64_t row) {
  return static_cast<uint32_t>(derive_seed(stream.seed, {static_cast<uint64_t>(stream.first_token + row)}));
}

// The same by tensor operations, where neither the loop below nor the kernel goes: products of 32-bit numbers in int64, cut to 32 bits.
at::Tensor mask_by_tensors(const at::Tensor& x, int64_t threshold, const Dropout& stream) {
  std::vector<int64_t> keys;
  for (int64_t row = 0; row < x.size(0); ++row) keys.push_back(row_key(stream, row));
  const auto low = [](const at::Tensor& t) { return t.bitwise_and(int64_t{0xffffffff}); };
  const auto shifted = [](const at::Tensor& t, int64_t by) { return t.bitwise_xor(t.bitwise_right_shift(by)); };
  const at::Tensor columns = low(at::arange(x.size(1), at::kLong).mul_(int64_t{kColumn})).to(x.device());
  at::Tensor h = at::tensor(keys, at::kLong).to(x.device()).unsqueeze(1).bitwise_xor(columns);
  h = low(shifted(h, 16).mul_(int64_t{kFirst}));
  h = low(shifted(h, 13).mul_(int64_t{kSecond}));
  return shifted(h, 16).ge(threshold);
}

}  // namespace

at::Tensor dropout(const at::Tensor& x, double p, const Dropout& stream) {
  if (p == 0 || stream.seed == 0) return x;
  if (!stream.pieces.empty()) {
    std::vector<at::Tensor> parts;
    int64_t row = 0;
    for (const Range& piece : stream.pieces) {
      parts.push_back(dropout(x.narrow(0, row, piece.size()), p, {stream.seed, stream.first_token + piece.begin}));
      row += piece.size();
    }
    return parts.size() == 1 ? parts.front() : at::cat(parts);
  }
  if (const auto type = cuda_element(x)) {
    const CudaCall call(x);
    const at::Tensor y = at::empty(x.sizes(), x.options());
    cuda::dropout({.element = *type,
                   .rows = x.size(0),
                   .d = x.size(1),
                   .x = x.const_data_ptr(),
                   .x_row = x.stride(0),
                   .y = y.mutable_data_ptr(),
                   .y_row = y.stride(0),
                   .p = p,
                   .seed = stream.seed,
                   .first_token = stream.first_token},
                  call.stream);
    return y;
  }
  const auto threshold = static_cast<int64_t>(p * 0x1p32);  // dropped below it
  const double scale = 1 / (1 - p);
  if (!x.is_cpu()) return x * mask_by_tensors(x, threshold, stream) * scale;
  at::Tensor y = at::empty_like(x);
  const int64_t rows = x.size(0), d = x.size(1);
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kBFloat16, at::kHalf, x.scalar_type(), "dropout", [&] {
    using wide_t = std::conditional_t<std::is_same_v<scalar_t, double>, double, float>;
    const scalar_t* from = x.data_ptr<scalar_t>();
    scalar_t* to = y.data_ptr<scalar_t>();
    at::parallel_for(0, rows, std::max<int64_t>(1, 16384 / d), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const uint32_t key = row_key(stream, row);
        for (int64_t i = 0; i < d; ++i) {
          const bool kept = mixed(key ^ (static_cast<uint32_t>(i) * kColumn)) >= static_cast<uint32_t>(threshold);
          const auto value = static_cast<wide_t>(from[row * d + i]) * static_cast<wide_t>(scale);
          to[row * d + i] = static_cast<scalar_t>(kept ? value : wide_t{0});
        }
      }
    });
  });
  return y;
}

}  // namespace longlora::ops

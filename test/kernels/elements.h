// For the tests of elementwise kernels: numbers of each element type, matrices with room around them that nobody may
// touch, and the rule that our error may be twice (gradients: three times) that of plain operations at the same precision.
#pragma once
#include <catch2/catch.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "core/base/random.h"
#include "cuda/host/convert.h"
#include "cuda/types.h"
#include "test/kernels/support.h"

namespace longlora::cuda::test {

// kEpsilon: the distance of neighbours next to 1. kTiny: the smallest number.
template <class T>
struct Numbers;
template <>
struct Numbers<float> {
  static constexpr Element kElement = Element::float32;
  static constexpr double kEpsilon = 0x1p-23, kTiny = 0x1p-149, kLargest = 0x1.fffffep127;
  static double value(float x) { return x; }
  static float of(double x) { return static_cast<float>(x); }
};
template <>
struct Numbers<bf16> {
  static constexpr Element kElement = Element::bfloat16;
  static constexpr double kEpsilon = 0x1p-7, kTiny = 0x1p-133, kLargest = 0x1.fep127;
  static double value(bf16 x) { return host::bf16_bits_to_float(x.bits); }
  static bf16 of(double x) { return {host::float_to_bf16_bits(static_cast<float>(x))}; }
};
template <>
struct Numbers<fp16> {
  static constexpr Element kElement = Element::float16;
  static constexpr double kEpsilon = 0x1p-10, kTiny = 0x1p-24, kLargest = 65504;
  static double value(fp16 x) { return host::fp16_bits_to_float(x.bits); }
  static fp16 of(double x) { return {host::float_to_fp16_bits(static_cast<float>(x))}; }
};

// How a result is stored after each step: exactly, or as plain operations at a precision store it.
using Round = double (*)(double);
inline double exactly(double x) {
  return x;
}
template <class T>
double nearest(double x) {
  return Numbers<T>::value(Numbers<T>::of(x));
}

struct Matrix {
  int64_t rows = 0, columns = 0;
  std::vector<double> data;
  Matrix() = default;
  Matrix(int64_t r, int64_t c) : rows(r), columns(c), data(static_cast<size_t>(r * c)) {}
  [[nodiscard]] double* operator[](int64_t r) { return data.data() + r * columns; }
  [[nodiscard]] const double* operator[](int64_t r) const { return data.data() + r * columns; }
};

// Normal-looking numbers of deviation `spread`, already rounded to T.
template <class T>
Matrix random_matrix(int64_t rows, int64_t columns, uint64_t seed, double spread = 1) {
  Matrix m(rows, columns);
  SplitMix random(seed);
  for (double& x : m.data) {
    double sum = -6;
    for (int i = 0; i < 12; ++i) sum += random.uniform();
    x = nearest<T>(sum * spread);
  }
  return m;
}

// A matrix of T as a kernel sees it: `room` elements after each row, the first element `shift` elements past an aligned
// address. Multiples of 8 allow accesses of 16 bytes.
template <class T>
class Cells {
 public:
  Cells(int64_t rows, int64_t columns, int64_t room = 0, int64_t shift = 0)
      : rows_(rows),
        columns_(columns),
        stride_(std::max<int64_t>(1, columns + room)),
        shift_(shift),
        memory_(shift + rows * stride_ + 8) {
    std::memset(static_cast<void*>(memory_.data()), kUntouched, memory_.size() * sizeof(T));
  }
  Cells(const Matrix& values, int64_t room = 0, int64_t shift = 0) : Cells(values.rows, values.columns, room, shift) {
    for (int64_t r = 0; r < rows_; ++r) {
      for (int64_t c = 0; c < columns_; ++c) data()[r * stride_ + c] = Numbers<T>::of(values[r][c]);
    }
  }
  [[nodiscard]] T* data() { return memory_.data() + shift_; }
  [[nodiscard]] int64_t stride() const { return stride_; }
  // The values, when the kernels are done; fails where memory outside of the rows was written.
  [[nodiscard]] Matrix values() {
    finish();
    Matrix m(rows_, columns_);
    for (size_t i = 0; i < memory_.size(); ++i) {
      const int64_t at = static_cast<int64_t>(i) - shift_, row = at / stride_, column = at % stride_;
      if (at >= 0 && row < rows_ && column < columns_) {
        m[row][column] = Numbers<T>::value(memory_[i]);
      } else {
        unsigned char bytes[sizeof(T)];
        std::memcpy(bytes, &memory_[i], sizeof(T));
        for (const unsigned char byte : bytes) {
          if (byte != kUntouched) FAIL("element " << at << " beside the rows was written");
        }
      }
    }
    return m;
  }

 private:
  static constexpr unsigned char kUntouched = 0x7f;
  int64_t rows_, columns_, stride_, shift_;
  Array<T> memory_;
};

inline double off(const std::vector<double>& a, const std::vector<double>& b) {
  REQUIRE(a.size() == b.size());
  double worst = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i] == b[i] || (std::isnan(a[i]) && std::isnan(b[i]))) continue;
    const double distance = std::abs(a[i] - b[i]);
    if (!(distance <= worst)) worst = distance;  // NaN stays
  }
  return worst;
}

// `factor`: 2 for values, 3 for gradients. The result's own rounding comes on top: half a unit of its largest number, a
// whole one of float32, where plain operations on a few numbers may happen to be exact.
template <class T>
void compare(const char* what, double factor, const std::vector<double>& ours, const std::vector<double>& plain,
             const std::vector<double>& exact) {
  double largest = 0;
  for (const double x : exact) largest = std::max(largest, std::abs(x));
  const double allowed =
      factor * off(plain, exact) + Numbers<T>::kEpsilon * (sizeof(T) == 2 ? 0.5 : 1.0) * largest + Numbers<T>::kTiny;
  INFO(what << ": off by " << off(ours, exact) << ", plain operations by " << off(plain, exact));
  CHECK(off(ours, exact) <= allowed);
}

}  // namespace longlora::cuda::test

// For the tests of the CPU kernels (core/ops/cpu) against plain loops in float64: arrays of any element type, the kernels
// of every instruction set that this processor has, and the measure of an error. Needs no LibTorch, so that the same tests
// run on another processor (scripts/check-arm).
#pragma once
#include <algorithm>
#include <bit>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <span>
#include <vector>

#include "core/base/isa.h"
#include "core/ops/cpu/kernels.h"

namespace longlora::test {

using cpu::Element;
constexpr Element kElements[] = {Element::f64, Element::f32, Element::bf16};
constexpr const char* kElementNames[] = {"f64", "f32", "bf16"};

// The type that sums of `element` are kept in.
constexpr Element sums_of(Element element) {
  return element == Element::f64 ? Element::f64 : Element::f32;
}

// The distance from 1 to the next number.
constexpr double spacing(Element element) {
  return element == Element::f64 ? 0x1p-52 : element == Element::f32 ? 0x1p-23 : 0x1p-7;
}

// An array of one element type, read and written as float64. NaN where nothing was written yet.
class Numbers {
 public:
  Numbers(Element element, int64_t count)
      : element_(element),
        bytes_(element == Element::f64   ? 8
               : element == Element::f32 ? 4
                                         : 2) {
    bits_.resize(static_cast<size_t>(count * bytes_ / 8 + 1));
    count_ = count;
    fill([] { return std::numeric_limits<double>::quiet_NaN(); });
  }

  // Normally distributed, of standard deviation `spread`.
  static Numbers random(Element element, int64_t count, std::mt19937_64& generator, double spread = 1) {
    Numbers numbers(element, count);
    std::normal_distribution<double> normal(0, spread);
    numbers.fill([&] { return normal(generator); });
    return numbers;
  }
  static Numbers zeros(Element element, int64_t count) {
    Numbers numbers(element, count);
    numbers.fill([] { return 0.0; });
    return numbers;
  }

  double operator[](int64_t i) const {
    if (element_ == Element::f64) return read<double>(i);
    if (element_ == Element::f32) return static_cast<double>(read<float>(i));
    return static_cast<double>(std::bit_cast<float>(static_cast<uint32_t>(read<uint16_t>(i)) << 16));
  }
  void set(int64_t i, double x) {
    const auto narrow = static_cast<float>(x);
    if (element_ == Element::f64) return write(i, x);
    if (element_ == Element::f32) return write(i, narrow);
    if (std::isnan(x)) return write(i, uint16_t{0x7fc0});
    const auto bits = std::bit_cast<uint32_t>(narrow);
    write(i, static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16));
  }

  [[nodiscard]] void* data() { return bits_.data(); }
  [[nodiscard]] int64_t size() const { return count_; }
  [[nodiscard]] Element element() const { return element_; }

 private:
  template <class Next>
  void fill(Next&& next) {
    for (int64_t i = 0; i < count_; ++i) set(i, next());
  }
  [[nodiscard]] char* at(int64_t i) { return reinterpret_cast<char*>(bits_.data()) + i * bytes_; }
  template <class T>
  T read(int64_t i) const {
    T x;
    std::memcpy(&x, reinterpret_cast<const char*>(bits_.data()) + i * bytes_, sizeof x);
    return x;
  }
  template <class T>
  void write(int64_t i, T x) {
    std::memcpy(at(i), &x, sizeof x);
  }

  Element element_;
  int64_t bytes_, count_ = 0;
  std::vector<uint64_t> bits_;
};

// The kernels of every instruction set that this processor has.
inline std::vector<const cpu::Kernels*> kernels_that_run_here() {
  std::vector<const cpu::Kernels*> all = {&cpu_baseline::kernels()};
#if defined(__x86_64__)
  if (processor_isa() >= Isa::avx2) all.push_back(&cpu_avx2::kernels());
  if (processor_isa() >= Isa::avx512) all.push_back(&cpu_avx512::kernels());
  if (processor_isa() >= Isa::amx) all.push_back(&cpu_amx::kernels());
#endif
  return all;
}

// Calls body for each of those and every element type.
inline void with_every_kernel(const std::function<void(const cpu::Kernels&, Element)>& body) {
  for (const cpu::Kernels* kernels : kernels_that_run_here()) {
    for (const Element element : kElements) {
      INFO(kernels->name << " kernels, " << kElementNames[static_cast<int>(element)]);
      body(*kernels, element);
    }
  }
}

// The norm of the error is at most `bound` of the norm of what is right, or of as many numbers of a `typical` size where
// those that are right cancel to less. NaN, also from what was never written, fails.
inline void check_close(const char* what, const Numbers& ours, std::span<const double> exact, double bound,
                        double typical = 1) {
  double error = 0, size = 0;
  REQUIRE(ours.size() == static_cast<int64_t>(exact.size()));
  for (int64_t i = 0; i < ours.size(); ++i) {
    const double right = exact[static_cast<size_t>(i)];
    error += std::pow(ours[i] - right, 2);
    size += right * right;
  }
  size = std::max(size, typical * typical * static_cast<double>(ours.size()));
  INFO(what << ": error " << std::sqrt(error) << ", size " << std::sqrt(size));
  CHECK(std::sqrt(error) <= bound * std::sqrt(size));
}

}  // namespace longlora::test

// device.cuh on the host: barriers, shuffles, shared memory, tensor cores and asynchronous copies do what CUDA says.
#include <catch2/catch.hpp>

#include <cmath>
#include <vector>

#include "cuda/host/convert.h"
#include "test/kernels/kernels.h"
#include "test/kernels/support.h"

using namespace longlora::cuda;
using test::in_every_order;

TEST_CASE("a block's sum goes through shuffles and static shared memory in any order of the lanes", "[device]") {
  for (const unsigned threads : {32u, 96u, 1024u}) {
    const int64_t blocks = 3, n = 1000;
    test::Array<float> x(blocks * n), sums(blocks);
    for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 17);
    in_every_order([&] {
      test::block_sums(x.data(), sums.data(), blocks, n, threads, nullptr);
      test::finish();
      for (int64_t b = 0; b < blocks; ++b) {
        float expected = 0;
        for (int64_t i = 0; i < n; ++i) expected += x[b * n + i];
        REQUIRE(sums[b] == expected);
      }
    });
  }
}

namespace {

float value(bf16 x) {
  return host::bf16_bits_to_float(x.bits);
}
float value(fp16 x) {
  return host::fp16_bits_to_float(x.bits);
}
void set(bf16& x, float v) {
  x.bits = host::float_to_bf16_bits(v);
}
void set(fp16& x, float v) {
  x.bits = host::float_to_fp16_bits(v);
}

template <class T>
void check_product(const test::Array<T>& a, const test::Array<T>& b) {
  for (const bool columns : {true, false}) {
    test::Array<T> given = b;  // [16][8]
    if (columns) {
      for (int k = 0; k < 16; ++k) {
        for (int n = 0; n < 8; ++n) given[n * 16 + k] = b[k * 8 + n];
      }
    }
    test::Array<float> c(16 * 8);
    test::small_product(a.data(), given.data(), c.data(), columns, test::Layout::right, nullptr);
    test::finish();
    for (int i = 0; i < 16; ++i) {
      for (int j = 0; j < 8; ++j) {
        float sum = 0;
        for (int k = 0; k < 16; ++k) sum += value(a[i * 16 + k]) * value(b[k * 8 + j]);
        if (c[i * 8 + j] != sum) FAIL("element " << i << "," << j << " is " << c[i * 8 + j] << ", not " << sum);
      }
    }
  }
}

}  // namespace

TEMPLATE_TEST_CASE("ldmatrix and mma agree with the definition of the product on one-hot and full matrices", "[device]",
                   bf16, fp16) {
  test::Array<TestType> a(16 * 16), b(16 * 8);
  // Small whole numbers: every sum is exact in any order.
  for (size_t i = 0; i < a.size(); ++i) set(a[i], static_cast<float>(i * 7 % 13) - 6);
  for (size_t i = 0; i < b.size(); ++i) set(b[i], static_cast<float>(i * 5 % 11) - 5);
  in_every_order([&] { check_product(a, b); });
  for (int k = 0; k < 16; ++k) {
    test::Array<TestType> hot_a(16 * 16, TestType{0}), hot_b(16 * 8, TestType{0});
    for (int i = 0; i < 16; ++i) set(hot_a[i * 16 + k], static_cast<float>(i + 1));
    for (int j = 0; j < 8; ++j) set(hot_b[k * 8 + j], static_cast<float>(j + 1));
    check_product(hot_a, hot_b);
  }
}

TEST_CASE("asynchronous copies bring what was waited for, zeros where there is no source", "[device]") {
  for (const int64_t n : {4, 128, 132, 1024}) {
    test::Array<float> in(n), out((n + 127) / 128 * 128, -1.0f);
    for (int64_t i = 0; i < n; ++i) in[i] = static_cast<float>(i + 1);
    in_every_order([&] {
      for (const bool eager : {false, true}) {
        host::options().eager_copies = eager;
        test::copy_pipeline(in.data(), out.data(), n, nullptr);
        test::finish();
        for (size_t i = 0; i < out.size(); ++i) REQUIRE(out[i] == (i < in.size() ? 2 * in[i] : 0.0f));
      }
    });
  }
}

TEST_CASE("shuffles and ballots follow CUDA's rules at the edges of width and mask", "[device]") {
  in_every_order([] {
    test::Array<uint32_t> out(5 * 32);
    test::shuffles(out.data(), nullptr);
    test::finish();
    for (uint32_t lane = 0; lane < 32; ++lane) {
      REQUIRE(out[lane] == 5);
      REQUIRE(out[32 + lane] == (lane < 3 ? lane : lane - 3));
      REQUIRE(out[64 + lane] == (lane % 8 + 2 < 8 ? lane + 2 : lane));
      REQUIRE(out[96 + lane] == (lane < 16 ? lane ^ 4 : lane ^ 8));
      REQUIRE(out[128 + lane] == 0x49249249u);
    }
  });
}

TEST_CASE("named barriers order their own threads, atomics need no barrier", "[device]") {
  in_every_order([] {
    test::Array<int> total(1);
    test::named_barriers(total.data(), nullptr);
    test::finish();
    REQUIRE(total[0] == 127 * 128 / 2);
  });
}

TEST_CASE("every bfloat16 and binary16 goes to float32 and back; rounding is to nearest, ties to even", "[host]") {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const uint16_t half = static_cast<uint16_t>(bits);
    const float b = host::bf16_bits_to_float(half), h = host::fp16_bits_to_float(half);
    const bool is_nan_b = (bits & 0x7fff) > 0x7f80, is_nan_h = (bits & 0x7fff) > 0x7c00;
    if (std::isnan(b) != is_nan_b || std::isnan(h) != is_nan_h) FAIL("NaN " << bits);
    if (!is_nan_b && host::float_to_bf16_bits(b) != half) FAIL("bfloat16 " << bits);
    if (!is_nan_h && host::float_to_fp16_bits(h) != half) FAIL("binary16 " << bits);
    const int exponent = static_cast<int>(bits >> 10 & 31);
    const double fraction = static_cast<double>(bits & 1023) / 1024, sign = bits >> 15 ? -1 : 1;
    const double exact = exponent == 0 ? std::ldexp(fraction, -14) : std::ldexp(1 + fraction, exponent - 15);
    if (exponent < 31 && h != sign * exact) FAIL("value of " << bits);
  }
  // Between neighbours a < b: below the middle to a, above to b, the middle to the even one.
  for (uint16_t bits = 0; bits < 0x7bff; ++bits) {
    const float a = host::fp16_bits_to_float(bits), b = host::fp16_bits_to_float(static_cast<uint16_t>(bits + 1));
    const float middle = a + (b - a) / 2;
    const uint16_t even = static_cast<uint16_t>(bits + (bits & 1));
    if (host::float_to_fp16_bits(middle) != even) FAIL("tie at " << bits);
    if (host::float_to_fp16_bits(std::nextafter(middle, 0.0f)) != bits) FAIL("below the tie at " << bits);
    if (host::float_to_fp16_bits(std::nextafter(middle, 1e9f)) != bits + 1) FAIL("above the tie at " << bits);
  }
  CHECK(host::float_to_fp16_bits(65519.9f) == 0x7bff);
  CHECK(host::float_to_fp16_bits(65520.0f) == 0x7c00);
  CHECK(host::float_to_bf16_bits(1.00390625f) == 0x3f80);  // 1 + 2^-8, half way to the next
  CHECK(host::float_to_bf16_bits(1.01171875f) == 0x3f82);
}

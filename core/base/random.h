// Random numbers that depend on a seed and a name alone: every use derives its own stream, so that nothing
// depends on the order of calls and a resumed run draws what the uninterrupted one would have drawn.
#pragma once
#include <cstdint>
#include <initializer_list>

namespace longlora {

// One round of SplitMix64 (Steele, Lea, Flood 2014): a bijective mix of 64 bits.
[[nodiscard]] constexpr uint64_t mix64(uint64_t x) {
  x += 0x9e3779b97f4a7c15ULL;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

// A seed for the stream named by `path`, e.g. derive_seed(seed, {step, micro, layer}).
[[nodiscard]] constexpr uint64_t derive_seed(uint64_t seed, std::initializer_list<uint64_t> path) {
  uint64_t h = mix64(seed);
  for (const uint64_t part : path) h = mix64(h ^ mix64(part));
  return h;
}

// A small generator with the standard interface (SplitMix64).
class SplitMix {
 public:
  using result_type = uint64_t;
  explicit SplitMix(uint64_t seed) : state_(seed) {}
  static constexpr uint64_t min() { return 0; }
  static constexpr uint64_t max() { return ~uint64_t{0}; }
  uint64_t operator()() {
    const uint64_t value = mix64(state_);
    state_ += 0x9e3779b97f4a7c15ULL;
    return value;
  }
  // Uniform in [0, n), n > 0, by Lemire's multiplication (bias below n / 2^64).
  uint64_t below(uint64_t n) { return static_cast<uint64_t>((static_cast<unsigned __int128>((*this)()) * n) >> 64); }
  // Uniform in [0, 1).
  double uniform() { return static_cast<double>((*this)() >> 11) * 0x1.0p-53; }

 private:
  uint64_t state_;
};

}  // namespace longlora

// The CPU kernels for attention against softmax attention written out in float64, segment by segment: values, log-sum-exp
// and gradients. Against LibTorch, over whole plans of groups: attention.cpp.
#include <memory>
#include <string>

#include "cpu_numbers.h"

namespace longlora {
namespace {

using namespace longlora::test;

struct Case {
  std::vector<int64_t> cuts;  // segments, from 0 on
  int64_t heads, kv_heads, head_dim;
  int64_t window = 0;
  double spread = 1;  // of the numbers in q and k
};

// Lengths around tiles of 64 and pieces of 512, one token, grouped heads, sizes of a head that fill no vector, windows.
const std::vector<Case> kCases = {
    {{0, 1}, 1, 1, 16},           {{0, 1, 2, 5}, 2, 2, 8},   {{0, 63}, 2, 1, 64},
    {{0, 64, 129}, 2, 2, 24},     {{0, 130, 131}, 4, 2, 48}, {{0, 100}, 3, 1, 80},
    {{0, 70}, 1, 1, 128},         {{0, 600}, 1, 1, 16},      {{0, 100}, 2, 1, 32, 1},
    {{0, 90, 200}, 2, 2, 32, 33}, {{0, 640}, 1, 1, 16, 530}, {{0, 100}, 2, 2, 32, 0, 4},  // one key takes nearly all
};

// Heads that lie one after the other in every token's row, with room between rows.
struct Heads {
  Numbers numbers;
  int64_t stride, head_dim;
  [[nodiscard]] cpu::HeadMatrix matrix() { return {numbers.data(), stride, head_dim}; }
  [[nodiscard]] int64_t at(int64_t token, int64_t head, int64_t i) const {
    return token * stride + head * head_dim + i;
  }
};

Heads make_heads(Numbers (*make)(Element, int64_t, std::mt19937_64&, double), Element element, const Case& c,
                 int64_t heads, std::mt19937_64& generator, double spread) {
  const int64_t stride = heads * c.head_dim + 3;
  return {make(element, c.cuts.back() * stride, generator, spread), stride, c.head_dim};
}
Numbers unwritten(Element element, int64_t count, std::mt19937_64&, double) {
  return {element, count};
}

struct Results {
  std::vector<double> out, lse, dq, dk, dv;
};

// [tokens, heads, D] without the room between rows.
Numbers dense(const Heads& x, int64_t heads) {
  const int64_t row = heads * x.head_dim, tokens = x.numbers.size() / x.stride;
  Numbers all(x.numbers.element(), tokens * row);
  for (int64_t i = 0; i < all.size(); ++i) all.set(i, x.numbers[i / row * x.stride + i % row]);
  return all;
}

Results written_out(const Case& c, const Numbers& q, const Numbers& k, const Numbers& v, const Numbers& dout,
                    double scale) {
  const int64_t d = c.head_dim, ratio = c.heads / c.kv_heads, tokens = c.cuts.back();
  const auto zeros = [](int64_t count) { return std::vector<double>(static_cast<size_t>(count), 0.0); };
  Results r = {zeros(q.size()), zeros(c.heads * tokens), zeros(q.size()), zeros(k.size()), zeros(k.size())};
  for (size_t s = 0; s + 1 < c.cuts.size(); ++s) {
    for (int64_t head = 0; head < c.heads; ++head) {
      for (int64_t i = c.cuts[s]; i < c.cuts[s + 1]; ++i) {
        const int64_t first = c.window > 0 ? std::max(c.cuts[s], i - c.window + 1) : c.cuts[s];
        const int64_t qi = (i * c.heads + head) * d;
        const auto kj = [&](int64_t j) { return (j * c.kv_heads + head / ratio) * d; };
        std::vector<double> p;
        double total = 0, delta = 0;
        for (int64_t j = first; j <= i; ++j) {
          double score = 0;
          for (int64_t x = 0; x < d; ++x) score += q[qi + x] * k[kj(j) + x];
          p.push_back(std::exp(score * scale));
          total += p.back();
        }
        r.lse[static_cast<size_t>(head * tokens + i)] = std::log(total);
        for (int64_t j = first; j <= i; ++j) {
          p[static_cast<size_t>(j - first)] /= total;
          for (int64_t x = 0; x < d; ++x)
            r.out[static_cast<size_t>(qi + x)] += p[static_cast<size_t>(j - first)] * v[kj(j) + x];
        }
        for (int64_t x = 0; x < d; ++x) delta += dout[qi + x] * r.out[static_cast<size_t>(qi + x)];
        for (int64_t j = first; j <= i; ++j) {
          const double pj = p[static_cast<size_t>(j - first)];
          double dp = 0;
          for (int64_t x = 0; x < d; ++x) dp += dout[qi + x] * v[kj(j) + x];
          const double ds = pj * (dp - delta) * scale;
          for (int64_t x = 0; x < d; ++x) {
            r.dq[static_cast<size_t>(qi + x)] += ds * k[kj(j) + x];
            r.dk[static_cast<size_t>(kj(j) + x)] += ds * q[qi + x];
            r.dv[static_cast<size_t>(kj(j) + x)] += pj * dout[qi + x];
          }
        }
      }
    }
  }
  return r;
}

std::shared_ptr<void> scratch(int64_t bytes) {
  return {std::aligned_alloc(64, static_cast<size_t>((bytes + 63) / 64 * 64)), std::free};
}

void run(const cpu::Kernels& kernels, Element element, const Case& c, const cpu::AttentionBackward& a) {
  constexpr int64_t kPiece = 200;  // queries of a forward task
  const int64_t tokens = c.cuts.back(), ratio = c.heads / c.kv_heads;
  const auto memory = scratch(std::max(kernels.attention_forward_scratch(element, c.head_dim),
                                       kernels.attention_backward_scratch(element, c.head_dim, tokens)));
  for (size_t s = 0; s + 1 < c.cuts.size(); ++s) {
    const int64_t begin = c.cuts[s], end = c.cuts[s + 1];
    for (int64_t head = 0; head < c.heads; ++head) {
      for (int64_t from = begin; from < end; from += kPiece) {
        kernels.attention_forward(element, a.forward, {begin, end, from, std::min(end, from + kPiece), head, 1},
                                  memory.get());
      }
    }
    for (int64_t head = 0; head < c.heads; head += ratio)
      kernels.attention_backward(element, a, {begin, end, begin, end, head, ratio}, memory.get());
  }
}

}  // namespace

TEST_CASE("attention on the CPU and its gradients are those of softmax attention written out", "[cpu][attention]") {
  const uint64_t seed = std::random_device()();
  INFO("seed " << seed);
  std::mt19937_64 generator(seed);
  for (const Case& c : kCases) {
    with_every_kernel([&](const cpu::Kernels& kernels, Element element) {
      INFO(c.cuts.back() << " tokens in " << c.cuts.size() - 1 << " segments, heads " << c.heads << "/" << c.kv_heads
                         << ", D " << c.head_dim << ", window " << c.window << ", spread " << c.spread);
      const double scale = 1 / std::sqrt(double(c.head_dim));
      const auto filled = [&](int64_t heads, double spread) {
        return make_heads(Numbers::random, element, c, heads, generator, spread);
      };
      const auto empty = [&](int64_t heads) { return make_heads(unwritten, element, c, heads, generator, 0); };
      Heads q = filled(c.heads, c.spread), k = filled(c.kv_heads, c.spread), v = filled(c.kv_heads, 1),
            dout = filled(c.heads, 1), out = empty(c.heads), dq = empty(c.heads), dk = empty(c.kv_heads),
            dv = empty(c.kv_heads);
      Numbers lse(sums_of(element), c.heads * c.cuts.back());
      const cpu::Attention forward = {q.matrix(),    k.matrix(), v.matrix(),           out.matrix(), lse.data(),
                                      c.cuts.back(), c.head_dim, c.heads / c.kv_heads, c.window,     scale};
      run(kernels, element, c, {forward, dout.matrix(), dq.matrix(), dk.matrix(), dv.matrix()});

      const Results exact =
          written_out(c, dense(q, c.heads), dense(k, c.kv_heads), dense(v, c.kv_heads), dense(dout, c.heads), scale);
      // The result is rounded, and where the processor multiplies bfloat16 the probabilities are as well. A score of
      // n digits in front of the point is off by that much more.
      const double typical = c.cuts.back() < 64 ? 1 : 0.1;
      const double sums = 32 * c.spread * c.spread * spacing(sums_of(element)), result = spacing(element);
      check_close("out", dense(out, c.heads), exact.out, result + sums, typical);
      check_close("lse", lse, exact.lse, sums);
      check_close("dv", dense(dv, c.kv_heads), exact.dv, result + sums, typical);
      check_close("dq", dense(dq, c.heads), exact.dq, 2 * (result + sums), typical);
      check_close("dk", dense(dk, c.kv_heads), exact.dk, 2 * (result + sums), typical);
    });
  }
}

}  // namespace longlora

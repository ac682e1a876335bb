// The CPU kernels for RMSNorm, rotary embedding, SwiGLU and cross-entropy against their definitions, written out in float64.
#include "cpu_numbers.h"

namespace longlora {
namespace {

using namespace longlora::test;

// What a result of `element` may be off: half a spacing where it is rounded, and as much for what was rounded or summed
// on the way.
double rounding(Element element) {
  return spacing(element) + 32 * spacing(sums_of(element));
}

// kernel(begin, end) over the rows in two pieces, as two threads would.
template <class Kernel>
void in_two_pieces(int64_t rows, Kernel&& kernel) {
  kernel(rows / 2, rows);
  kernel(int64_t{0}, rows / 2);
}

struct Norm {
  std::vector<double> y, rstd, dx, dw;
};

Norm rmsnorm(const Numbers& x, const Numbers& w, const Numbers& dy, const Numbers* residual, double eps) {
  const int64_t d = w.size(), rows = x.size() / d;
  Norm out;
  out.dw.assign(static_cast<size_t>(d), 0);
  for (int64_t t = 0; t < rows; ++t) {
    double squares = 0, dot = 0;
    for (int64_t i = 0; i < d; ++i) squares += x[t * d + i] * x[t * d + i];
    const double rstd = 1 / std::sqrt(squares / double(d) + eps);
    out.rstd.push_back(rstd);
    for (int64_t i = 0; i < d; ++i) dot += w[i] * dy[t * d + i] * x[t * d + i] * rstd;
    for (int64_t i = 0; i < d; ++i) {
      const double hat = x[t * d + i] * rstd;
      out.y.push_back(w[i] * hat);
      out.dx.push_back((residual == nullptr ? 0 : (*residual)[t * d + i]) +
                       rstd * (w[i] * dy[t * d + i] - hat * dot / double(d)));
      out.dw[static_cast<size_t>(i)] += dy[t * d + i] * hat;
    }
  }
  return out;
}

}  // namespace

TEST_CASE("RMSNorm on the CPU and its gradients are those of the definition", "[cpu]") {
  const uint64_t seed = std::random_device()();
  INFO("seed " << seed);
  std::mt19937_64 generator(seed);
  with_every_kernel([&](const cpu::Kernels& kernels, Element element) {
    for (const int64_t d : {1, 2, 31, 64, 100, 777}) {
      INFO("d " << d);
      const int64_t rows = 5;
      const double eps = 1e-5;
      Numbers x = Numbers::random(element, rows * d, generator, 3), w = Numbers::random(element, d, generator),
              dy = Numbers::random(element, rows * d, generator),
              residual = Numbers::random(element, rows * d, generator);
      Numbers y(element, rows * d), rstd(sums_of(element), rows), dx(element, rows * d),
          dw = Numbers::zeros(sums_of(element), d);
      const Norm exact = rmsnorm(x, w, dy, &residual, eps), alone = rmsnorm(x, w, dy, nullptr, eps);

      const cpu::RmsNormForward forward = {x.data(), w.data(), y.data(), rstd.data(), d, eps};
      in_two_pieces(rows, [&](int64_t begin, int64_t end) { kernels.rmsnorm_forward(element, forward, begin, end); });
      check_close("y", y, exact.y, rounding(element));
      check_close("rstd", rstd, exact.rstd, rounding(sums_of(element)));

      cpu::RmsNormBackward backward = {x.data(),        w.data(),  rstd.data(), dy.data(),
                                       residual.data(), dx.data(), dw.data(),   d};
      in_two_pieces(rows, [&](int64_t begin, int64_t end) { kernels.rmsnorm_backward(element, backward, begin, end); });
      check_close("dx", dx, exact.dx, rounding(element));
      check_close("dw", dw, exact.dw, rounding(sums_of(element)));

      backward.residual = nullptr;
      backward.dw = nullptr;
      in_two_pieces(rows, [&](int64_t begin, int64_t end) { kernels.rmsnorm_backward(element, backward, begin, end); });
      if (d > 2)
        check_close("dx without residual", dx, alone.dx, 2 * rounding(element));  // of fewer hardly a sum is left
      check_close("dw of a frozen weight", dw, exact.dw, rounding(sums_of(element)));

      backward.residual = backward.dx = residual.data();
      in_two_pieces(rows, [&](int64_t begin, int64_t end) { kernels.rmsnorm_backward(element, backward, begin, end); });
      check_close("dx in place", residual, exact.dx, rounding(element));
    }
  });
}

TEST_CASE("the rotary embedding on the CPU turns pairs of numbers, and back", "[cpu]") {
  const uint64_t seed = std::random_device()();
  INFO("seed " << seed);
  std::mt19937_64 generator(seed);
  with_every_kernel([&](const cpu::Kernels& kernels, Element element) {
    for (const int64_t head_dim : {2, 6, 16, 80, 128}) {
      INFO("head_dim " << head_dim);
      const int64_t heads = 3, half = head_dim / 2, stride = heads * head_dim + 5;
      const std::vector<int32_t> positions = {0, 1, 7, 3, 40};
      const auto rows = static_cast<int64_t>(positions.size());
      Numbers cos(sums_of(element), 41 * half), sin(sums_of(element), 41 * half);
      for (int64_t i = 0; i < 41 * half; ++i) {
        const double angle = double(i / half) * std::pow(10000.0, -double(i % half) / double(half));
        cos.set(i, std::cos(angle));
        sin.set(i, std::sin(angle));
      }
      const Numbers before = Numbers::random(element, rows * stride, generator);
      Numbers x = before;
      std::vector<double> turned, same;
      for (int64_t i = 0; i < x.size(); ++i) same.push_back(before[i]);
      turned = same;
      for (int64_t t = 0; t < rows; ++t) {
        for (int64_t i = 0; i < heads * half; ++i) {
          const int64_t lo = t * stride + i / half * head_dim + i % half, hi = lo + half;
          const int64_t angle = positions[static_cast<size_t>(t)] * half + i % half;
          turned[static_cast<size_t>(lo)] = before[lo] * cos[angle] - before[hi] * sin[angle];
          turned[static_cast<size_t>(hi)] = before[hi] * cos[angle] + before[lo] * sin[angle];
        }
      }
      cpu::Rope rope = {x.data(), positions.data(), cos.data(), sin.data(), stride, heads, head_dim, false};
      in_two_pieces(rows, [&](int64_t begin, int64_t end) { kernels.rope(element, rope, begin, end); });
      check_close("turned", x, turned, rounding(element));
      rope.inverse = true;
      kernels.rope(element, rope, 0, rows);
      check_close("turned back", x, same, 2 * rounding(element));
    }
  });
}

TEST_CASE("SwiGLU on the CPU and its gradients are those of the definition", "[cpu]") {
  const uint64_t seed = std::random_device()();
  INFO("seed " << seed);
  std::mt19937_64 generator(seed);
  with_every_kernel([&](const cpu::Kernels& kernels, Element element) {
    for (const int64_t n : {1, 7, 16, 65, 300}) {
      INFO("n " << n);
      const int64_t rows = 4;
      Numbers gu = Numbers::random(element, rows * 2 * n, generator, 4),
              dm = Numbers::random(element, rows * n, generator);
      Numbers m(element, rows * n), dgu(element, rows * 2 * n), again(element, rows * n);
      std::vector<double> exact, gradient(static_cast<size_t>(gu.size()));
      for (int64_t i = 0; i < rows * n; ++i) {
        const int64_t at = i / n * 2 * n + i % n;
        const double g = gu[at], u = gu[at + n], sigmoid = 1 / (1 + std::exp(-g));
        exact.push_back(g * sigmoid * u);
        gradient[static_cast<size_t>(at)] = dm[i] * u * sigmoid * (1 + g * (1 - sigmoid));
        gradient[static_cast<size_t>(at + n)] = dm[i] * g * sigmoid;
      }
      const cpu::SwigluForward forward = {gu.data(), m.data(), n};
      in_two_pieces(rows, [&](int64_t begin, int64_t end) { kernels.swiglu_forward(element, forward, begin, end); });
      check_close("m", m, exact, rounding(element));

      cpu::SwigluBackward backward = {gu.data(), dm.data(), dgu.data(), nullptr, n};
      in_two_pieces(rows, [&](int64_t begin, int64_t end) { kernels.swiglu_backward(element, backward, begin, end); });
      check_close("dgu", dgu, gradient, rounding(element));
      backward.dgu = gu.data();
      backward.m = again.data();
      in_two_pieces(rows, [&](int64_t begin, int64_t end) { kernels.swiglu_backward(element, backward, begin, end); });
      check_close("dgu in place", gu, gradient, rounding(element));
      check_close("m again", again, exact, rounding(element));
    }
  });
}

TEST_CASE("SwiGLU on the CPU is right far from 0, and keeps what is no number", "[cpu]") {
  with_every_kernel([&](const cpu::Kernels& kernels, Element element) {
    const double inputs[] = {-1e30, -300, -90, -87.5, -87, 0, 87, 90, 300, 1e30, NAN};
    const int64_t n = std::size(inputs);
    Numbers gu(element, 2 * n), m(element, n), dm(element, n), dgu(element, 2 * n);
    for (int64_t i = 0; i < n; ++i) {
      gu.set(i, inputs[i]);
      gu.set(n + i, 1);
      dm.set(i, 1);
    }
    kernels.swiglu_forward(element, {gu.data(), m.data(), n}, 0, 1);
    kernels.swiglu_backward(element, {gu.data(), dm.data(), dgu.data(), nullptr, n}, 0, 1);
    for (int64_t i = 0; i < n; ++i) {
      const double g = gu[i];
      INFO(g);
      if (std::isnan(g)) {
        CHECK((std::isnan(m[i]) && std::isnan(dgu[i]) && std::isnan(dgu[n + i])));
        continue;
      }
      const double sigmoid = 1 / (1 + std::exp(-g)), tiny = 1e-34;
      CHECK(std::abs(m[i] - g * sigmoid) <= rounding(element) * std::abs(g * sigmoid) + tiny);
      CHECK(std::abs(dgu[i] - sigmoid * (1 + g * (1 - sigmoid))) <= rounding(element) + tiny);
      CHECK(std::abs(dgu[n + i] - g * sigmoid) <= rounding(element) * std::abs(g * sigmoid) + tiny);
    }
  });
}

TEST_CASE("cross-entropy on the CPU and its gradient are those of the definition", "[cpu]") {
  const uint64_t seed = std::random_device()();
  INFO("seed " << seed);
  std::mt19937_64 generator(seed);
  with_every_kernel([&](const cpu::Kernels& kernels, Element element) {
    for (const int64_t vocab : {1, 5, 32, 100, 3001}) {
      INFO("vocab " << vocab);
      const auto last = static_cast<int32_t>(vocab - 1);
      const std::vector<int32_t> targets = {0, -100, last, last / 2, last};
      const auto rows = static_cast<int64_t>(targets.size());
      const double scale = 0.25, largest = 8 * 3 * 3;
      Numbers logits = Numbers::random(element, rows * vocab, generator, 3);
      for (int64_t i = 0; i < vocab; ++i) logits.set(4 * vocab + i, logits[4 * vocab + i] * 8);  // one token takes all
      std::vector<double> loss, gradient;
      for (int64_t t = 0; t < rows; ++t) {
        const int32_t target = targets[static_cast<size_t>(t)];
        double top = -INFINITY, total = 0;
        for (int64_t i = 0; i < vocab; ++i) top = std::max(top, logits[t * vocab + i]);
        for (int64_t i = 0; i < vocab; ++i) total += std::exp(logits[t * vocab + i] - top);
        loss.push_back(target < 0 ? 0 : top + std::log(total) - logits[t * vocab + target]);
        for (int64_t i = 0; i < vocab; ++i) {
          const double p = std::exp(logits[t * vocab + i] - top) / total;
          gradient.push_back(target < 0 ? 0 : (p - (i == target ? 1 : 0)) * scale);
        }
      }
      Numbers losses(sums_of(element), rows), untouched = logits;
      cpu::CrossEntropy entropy = {untouched.data(), targets.data(), losses.data(), vocab, scale, false};
      in_two_pieces(rows, [&](int64_t begin, int64_t end) { kernels.cross_entropy(element, entropy, begin, end); });
      check_close("loss alone", losses, loss, rounding(sums_of(element)), largest);
      for (int64_t i = 0; i < logits.size(); ++i) REQUIRE(untouched[i] == logits[i]);

      entropy.logits = logits.data();
      entropy.gradient = true;
      in_two_pieces(rows, [&](int64_t begin, int64_t end) { kernels.cross_entropy(element, entropy, begin, end); });
      check_close("loss", losses, loss, rounding(sums_of(element)), largest);
      check_close("gradient", logits, gradient, rounding(element), scale / std::sqrt(double(vocab)));
    }
  });
}

}  // namespace longlora

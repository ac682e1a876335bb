// RMSNorm, rotary embedding, SwiGLU and cross-entropy on the CPU: one pass over memory each. The mathematics stands beside
// the arguments in kernels.h.
#include "core/ops/cpu/attention.h"
#include "core/ops/cpu/vectors.h"

namespace longlora::LONGLORA_CPU_NAMESPACE {
namespace {

void rmsnorm_forward(cpu::Element element, const cpu::RmsNormForward& a, int64_t begin, int64_t end) {
  with_element(element, [&]<class T>() {
    using S = sum_t<T>;
    const T* w = static_cast<const T*>(a.w);
    for (int64_t t = begin; t < end; ++t) {
      const T* x = static_cast<const T*>(a.x) + t * a.d;
      T* y = static_cast<T*>(a.y) + t * a.d;
      const S squares = sum<T>(a.d, [=](auto at) {
        const Vec<S> v = at.load(x);
        return v * v;
      });
      const S mean = squares / static_cast<S>(a.d) + static_cast<S>(a.eps);
      S rstd;
      if constexpr (sizeof(S) == 8)
        rstd = 1 / __builtin_sqrt(mean);
      else
        rstd = 1 / __builtin_sqrtf(mean);
      if (a.rstd != nullptr) static_cast<S*>(a.rstd)[t] = rstd;
      each<T>(a.d, [=](auto at) { at.store(y, at.load(w) * rounded_lanes<T>(at.load(x) * rstd)); });
    }
  });
}

void rmsnorm_backward(cpu::Element element, const cpu::RmsNormBackward& a, int64_t begin, int64_t end) {
  with_element(element, [&]<class T>() {
    using S = sum_t<T>;
    const T* w = static_cast<const T*>(a.w);
    S* dw = static_cast<S*>(a.dw);
    for (int64_t t = begin; t < end; ++t) {
      const T* x = static_cast<const T*>(a.x) + t * a.d;
      const T* dy = static_cast<const T*>(a.dy) + t * a.d;
      const T* residual = a.residual == nullptr ? nullptr : static_cast<const T*>(a.residual) + t * a.d;
      T* dx = static_cast<T*>(a.dx) + t * a.d;
      const S rstd = static_cast<const S*>(a.rstd)[t];
      const S dot = sum<T>(a.d, [=](auto at) { return at.load(w) * at.load(dy) * at.load(x); });
      const S pull = dot * rstd * rstd / static_cast<S>(a.d);
      if (dw != nullptr) each<T>(a.d, [=](auto at) { at.store(dw, at.load(dw) + at.load(dy) * (at.load(x) * rstd)); });
      const auto gradient = [=](auto at) { return rstd * (at.load(w) * at.load(dy) - at.load(x) * pull); };
      if (residual != nullptr)
        each<T>(a.d, [=](auto at) { at.store(dx, at.load(residual) + gradient(at)); });
      else
        each<T>(a.d, [=](auto at) { at.store(dx, gradient(at)); });
    }
  });
}

void rope(cpu::Element element, const cpu::Rope& a, int64_t begin, int64_t end) {
  with_element(element, [&]<class T>() {
    using S = sum_t<T>;
    const int64_t half = a.head_dim / 2;
    const S sign = a.inverse ? -1 : 1;
    for (int64_t t = begin; t < end; ++t) {
      const S* cos = static_cast<const S*>(a.cos) + a.positions[t] * half;
      const S* sin = static_cast<const S*>(a.sin) + a.positions[t] * half;
      for (int64_t h = 0; h < a.heads; ++h) {
        T* lo = static_cast<T*>(a.x) + t * a.token_stride + h * a.head_dim;
        T* hi = lo + half;
        each<T>(half, [=](auto at) {
          const Vec<S> x = at.load(lo), y = at.load(hi), c = at.load(cos), s = sign * at.load(sin);
          at.store(lo, x * c - y * s);
          at.store(hi, y * c + x * s);
        });
      }
    }
  });
}

void swiglu_forward(cpu::Element element, const cpu::SwigluForward& a, int64_t begin, int64_t end) {
  with_element(element, [&]<class T>() {
    using S = sum_t<T>;
    for (int64_t t = begin; t < end; ++t) {
      const T* g = static_cast<const T*>(a.gu) + t * 2 * a.n;
      const T* u = g + a.n;
      T* m = static_cast<T*>(a.m) + t * a.n;
      each<T>(a.n, [=](auto at) {
        const Vec<S> x = at.load(g);
        at.store(m, x * sigmoid<S>(x) * at.load(u));
      });
    }
  });
}

void swiglu_backward(cpu::Element element, const cpu::SwigluBackward& a, int64_t begin, int64_t end) {
  with_element(element, [&]<class T>() {
    using S = sum_t<T>;
    for (int64_t t = begin; t < end; ++t) {
      const T* g = static_cast<const T*>(a.gu) + t * 2 * a.n;
      const T* u = g + a.n;
      const T* dm = static_cast<const T*>(a.dm) + t * a.n;
      T* dg = static_cast<T*>(a.dgu) + t * 2 * a.n;
      T* du = dg + a.n;
      T* m = a.m == nullptr ? nullptr : static_cast<T*>(a.m) + t * a.n;
      each<T>(a.n, [=](auto at) {
        const Vec<S> x = at.load(g), up = at.load(u), grad = at.load(dm);
        const Vec<S> gate = sigmoid<S>(x), silu = x * gate;
        at.store(dg, grad * up * gate * (1 + x * (1 - gate)));
        at.store(du, grad * silu);
        if (m != nullptr) at.store(m, silu * up);
      });
    }
  });
}

template <class T>
sum_t<T> largest(const T* x, int64_t n) {
  using S = sum_t<T>;
  constexpr int lanes = Lanes<S>::kCount;
  Vec<S> top[2] = {all_lanes(load(x[0])), all_lanes(load(x[0]))};
  int64_t i = 0;
  for (; i + 2 * lanes <= n; i += 2 * lanes) {
    top[0] = larger<S>(top[0], load_lanes(x + i));
    top[1] = larger<S>(top[1], load_lanes(x + i + lanes));
  }
  const Vec<S> both = larger<S>(top[0], top[1]);
  S best = both[0];
  for (int l = 1; l < lanes; ++l) best = best < both[l] ? both[l] : best;
  for (; i < n; ++i) best = best < load(x[i]) ? load(x[i]) : best;
  return best;
}

void cross_entropy(cpu::Element element, const cpu::CrossEntropy& a, int64_t begin, int64_t end) {
  with_element(element, [&]<class T>() {
    using S = sum_t<T>;
    for (int64_t t = begin; t < end; ++t) {
      T* x = static_cast<T*>(a.logits) + t * a.vocab;
      S* loss = static_cast<S*>(a.loss) + t;
      const int32_t target = a.targets[t];
      if (target < 0) {
        *loss = 0;
        for (int64_t i = 0; a.gradient && i < a.vocab; ++i) store(x[i], S(0));
        continue;
      }
      const S top = largest(x, a.vocab);
      const S total = sum<T>(a.vocab, [=](auto at) { return exponential(at.load(x) - top); });
      const S log_total = sizeof(S) == 8 ? static_cast<S>(__builtin_log(static_cast<double>(total)))
                                         : static_cast<S>(__builtin_logf(static_cast<float>(total)));
      *loss = top + log_total - load(x[target]);
      if (!a.gradient) continue;
      const S scale = static_cast<S>(a.scale), inverse = scale / total;
      const S at_target = exponential(all_lanes(load(x[target]) - top))[0] * inverse - scale;
      each<T>(a.vocab, [=](auto at) { at.store(x, exponential(at.load(x) - top) * inverse); });
      store(x[target], at_target);
    }
  });
}

}  // namespace

const cpu::Kernels& kernels() {
  static constexpr cpu::Kernels table = {
#if defined(LONGLORA_ISA_amx)
    "amx",
#elif defined(LONGLORA_ISA_avx512)
    "avx512",
#elif defined(LONGLORA_ISA_avx2)
    "avx2",
#else
    "baseline",
#endif
#if defined(__AVX512BF16__)
    true,
#else
    false,
#endif
    rmsnorm_forward,
    rmsnorm_backward,
    rope,
    swiglu_forward,
    swiglu_backward,
    cross_entropy,
    attention_forward,
    attention_backward,
    attention_forward_scratch,
    attention_backward_scratch
  };
  return table;
}

}  // namespace longlora::LONGLORA_CPU_NAMESPACE

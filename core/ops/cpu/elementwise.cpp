// RMSNorm, rotary embedding, SwiGLU and cross-entropy on the CPU: one pass over memory each, vectorised by
// the compiler. The mathematics stands beside the arguments in kernels.h.
#include "core/ops/cpu/attention.h"
#include "core/ops/cpu/element.h"

namespace longlora::LONGLORA_CPU_NAMESPACE {
namespace {

// Sums go into this many independent lanes, in an order that depends on nothing but the length.
constexpr int kLanes = 32;

template <class S>
S add_lanes(const S (&lane)[kLanes]) {
  S total = 0;
  for (int i = 0; i < kLanes; ++i) total += lane[i];
  return total;
}

// sum over i < n of term(i), vectorised without leave to reorder freely.
template <class S, class Term>
S sum(int64_t n, Term&& term) {
  S lane[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int l = 0; l < kLanes; ++l) lane[l] += term(i + l);
  }
  S rest = 0;
  for (; i < n; ++i) rest += term(i);
  return add_lanes(lane) + rest;
}

void rmsnorm_forward(cpu::Element element, const cpu::RmsNormForward& a, int64_t begin, int64_t end) {
  with_element(element, [&]<class T>() {
    using S = sum_t<T>;
    const T* w = static_cast<const T*>(a.w);
    for (int64_t t = begin; t < end; ++t) {
      const T* x = static_cast<const T*>(a.x) + t * a.d;
      T* y = static_cast<T*>(a.y) + t * a.d;
      const S squares = sum<S>(a.d, [x](int64_t i) { return load(x[i]) * load(x[i]); });
      const S mean = squares / static_cast<S>(a.d) + static_cast<S>(a.eps);
      S rstd;
      if constexpr (sizeof(S) == 8)
        rstd = 1 / __builtin_sqrt(mean);
      else
        rstd = 1 / __builtin_sqrtf(mean);
      if (a.rstd != nullptr) static_cast<S*>(a.rstd)[t] = rstd;
      for (int64_t i = 0; i < a.d; ++i) store(y[i], load(w[i]) * rounded<T>(load(x[i]) * rstd));
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
      const S dot = sum<S>(a.d, [=](int64_t i) { return load(w[i]) * load(dy[i]) * load(x[i]); });
      const S pull = dot * rstd * rstd / static_cast<S>(a.d);
      if (dw != nullptr) {
        for (int64_t i = 0; i < a.d; ++i) dw[i] += load(dy[i]) * (load(x[i]) * rstd);
      }
      if (residual != nullptr) {
        for (int64_t i = 0; i < a.d; ++i) {
          store(dx[i], load(residual[i]) + rstd * (load(w[i]) * load(dy[i]) - load(x[i]) * pull));
        }
      } else {
        for (int64_t i = 0; i < a.d; ++i) store(dx[i], rstd * (load(w[i]) * load(dy[i]) - load(x[i]) * pull));
      }
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
        LONGLORA_INDEPENDENT
        for (int64_t i = 0; i < half; ++i) {
          const S x = load(lo[i]), y = load(hi[i]), s = sign * sin[i];
          store(lo[i], x * cos[i] - y * s);
          store(hi[i], y * cos[i] + x * s);
        }
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
      for (int64_t i = 0; i < a.n; ++i) {
        const S x = load(g[i]);
        store(m[i], x / (1 + exponential(-x)) * load(u[i]));
      }
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
      const auto element_at = [=](int64_t i) {
        const S x = load(g[i]), up = load(u[i]), grad = load(dm[i]);
        const S sigmoid = 1 / (1 + exponential(-x));
        const S silu = x * sigmoid;
        store(dg[i], grad * up * sigmoid * (1 + x * (1 - sigmoid)));
        store(du[i], grad * silu);
        return silu * up;
      };
      if (m != nullptr) {
        LONGLORA_INDEPENDENT
        for (int64_t i = 0; i < a.n; ++i) store(m[i], element_at(i));
      } else {
        LONGLORA_INDEPENDENT
        for (int64_t i = 0; i < a.n; ++i) element_at(i);
      }
    }
  });
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
      S lane[kLanes];
      for (S& l : lane) l = load(x[0]);
      int64_t i = 0;
      for (; i + kLanes <= a.vocab; i += kLanes) {
        for (int l = 0; l < kLanes; ++l) lane[l] = lane[l] > load(x[i + l]) ? lane[l] : load(x[i + l]);
      }
      for (; i < a.vocab; ++i) lane[0] = lane[0] > load(x[i]) ? lane[0] : load(x[i]);
      S top = lane[0];
      for (const S l : lane) top = top > l ? top : l;
      const S total = sum<S>(a.vocab, [x, top](int64_t j) { return exponential(load(x[j]) - top); });
      const S log_total = sizeof(S) == 8 ? static_cast<S>(__builtin_log(static_cast<double>(total)))
                                         : static_cast<S>(__builtin_logf(static_cast<float>(total)));
      *loss = top + log_total - load(x[target]);
      if (!a.gradient) continue;
      const S scale = static_cast<S>(a.scale), inverse = scale / total;
      const S at_target = exponential(load(x[target]) - top) * inverse - scale;
      for (int64_t j = 0; j < a.vocab; ++j) store(x[j], exponential(load(x[j]) - top) * inverse);
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

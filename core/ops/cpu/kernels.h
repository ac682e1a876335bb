// The table of CPU kernels, one instance per instruction set. Each works on rows [begin, end) of its
// arguments; the caller splits the rows over threads. T: tokens, d: hidden size. Element types are those of
// Element; sums are kept in float32 (float64 for f64).
#pragma once
#include <stdint.h>

namespace longlora::cpu {

enum class Element { f64, f32, bf16 };

// y = w * round(x * rstd), rstd = 1 / sqrt(mean(x^2) + eps). The inner rounding to the element type is what
// the reference implementation does.
struct RmsNormForward {
  const void* x;  // [T, d]
  const void* w;  // [d]
  void* y;        // [T, d]
  void* rstd;     // [T] float32 (float64 for f64), may be null
  int64_t d;
  double eps;
};

// dx = residual + rstd * (w * dy - xhat * mean(w * dy * xhat)); dw += sum over rows of dy * xhat.
struct RmsNormBackward {
  const void* x;         // [T, d]
  const void* w;         // [d]
  const void* rstd;      // [T]
  const void* dy;        // [T, d]
  const void* residual;  // [T, d] or null
  void* dx;              // [T, d], may be `residual`
  void* dw;              // [d] float32 (float64 for f64), added to; null when w is frozen
  int64_t d;
};

// Rotary embedding in place: pairs (i, i + D/2) of each head turn by the angle of the token's position
// (rotate_half convention). `inverse` turns back: the gradient.
struct Rope {
  void* x;                   // first head of the first token
  const int32_t* positions;  // [T]
  const void* cos;           // [positions, D/2] float32 (float64 for f64)
  const void* sin;
  int64_t token_stride, heads, head_dim;  // heads lie one after the other
  bool inverse;
};

// m = silu(g) * u with gu = [g | u].
struct SwigluForward {
  const void* gu;  // [T, 2 * n]
  void* m;         // [T, n]
  int64_t n;
};

// dgu from dm; `m` is written again when not null (a trainable down projection needs it).
struct SwigluBackward {
  const void* gu;  // [T, 2 * n]
  const void* dm;  // [T, n]
  void* dgu;       // [T, 2 * n], may be `gu`
  void* m;         // [T, n] or null
  int64_t n;
};

// Cross-entropy of each row of logits with its target; with `gradient` the logits are replaced by
// (softmax - onehot) * scale. Rows whose target is negative get loss 0 and gradient 0.
struct CrossEntropy {
  void* logits;            // [C, vocab]
  const int32_t* targets;  // [C]
  void* loss;              // [C] float32 (float64 for f64)
  int64_t vocab;
  double scale;
  bool gradient;
};

// One matrix a head, [T, D] each, rows with innermost stride 1 inside a larger buffer. Strides in elements.
struct HeadMatrix {
  void* data;
  int64_t token_stride, head_stride;
};

// Causal softmax attention (mathematics in core/ops/attention.h). Query head h reads KV head h / ratio.
struct Attention {
  HeadMatrix q, k, v;
  HeadMatrix out;      // written by the forward pass, read by the backward pass
  void* lse;           // [Hq, T] float32 (float64 for f64), likewise
  int64_t lse_stride;  // from head to head
  int64_t head_dim, ratio;
  int64_t window;  // a query sees keys with query - key < window; 0: no limit
  double scale;    // of the scores
};

struct AttentionBackward {
  Attention forward;
  HeadMatrix dout;        // [T, Hq, D]
  HeadMatrix dq, dk, dv;  // written
};

// One piece of work: a segment and its queries [from, to) of one query head (forward), or the whole segment
// for the query heads [head, head + heads) of one KV head (backward). Pieces write to separate places and may
// run in any order.
struct AttentionTask {
  int64_t begin, end;  // the segment
  int64_t from, to;    // queries of a forward task, begin <= from < to <= end
  int64_t head, heads;
};

struct Kernels {
  const char* name;
  bool bfloat16_units;  // products take bfloat16 as it is (AVX-512 BF16)
  void (*rmsnorm_forward)(Element, const RmsNormForward&, int64_t begin, int64_t end);
  void (*rmsnorm_backward)(Element, const RmsNormBackward&, int64_t begin, int64_t end);
  void (*rope)(Element, const Rope&, int64_t begin, int64_t end);
  void (*swiglu_forward)(Element, const SwigluForward&, int64_t begin, int64_t end);
  void (*swiglu_backward)(Element, const SwigluBackward&, int64_t begin, int64_t end);
  void (*cross_entropy)(Element, const CrossEntropy&, int64_t begin, int64_t end);
  // `scratch`: as many bytes as the functions below say, aligned to 64, of this thread's own.
  void (*attention_forward)(Element, const Attention&, const AttentionTask&, void* scratch);
  void (*attention_backward)(Element, const AttentionBackward&, const AttentionTask&, void* scratch);
  int64_t (*attention_forward_scratch)(Element, int64_t head_dim);
  int64_t (*attention_backward_scratch)(Element, int64_t head_dim, int64_t longest_segment);
};

// Most queries of a forward task.
constexpr int64_t kAttentionQueries = 512;

}  // namespace longlora::cpu

namespace longlora::cpu_baseline {
const cpu::Kernels& kernels();
}
namespace longlora::cpu_avx2 {
const cpu::Kernels& kernels();
}
namespace longlora::cpu_avx512 {
const cpu::Kernels& kernels();
}
namespace longlora::cpu_amx {
const cpu::Kernels& kernels();
}

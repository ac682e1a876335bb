// What stands behind attention.h: the arguments as one value, and one pair of functions per backend.
#pragma once
#include <ATen/ATen.h>

#include <vector>

#include "core/ops/cpu_kernels.h"
#include "core/ops/group_plan.h"

namespace longlora::ops {

struct AttentionForward {
  const at::Tensor &q, &k, &v;  // [T, Hq, D], [T, Hkv, D] twice
  const at::Tensor &out, &lse;  // written: [T, Hq, D], [Hq, T]
  const GroupPlan& plan;
};

struct AttentionBackward {
  const at::Tensor &dout, &q, &k, &v, &out, &lse;
  const at::Tensor &dq, &dk, &dv;  // written
  const GroupPlan& plan;
};

// Query heads [first, first + count) and the cut of the tokens that they attend in.
struct HeadRange {
  int64_t first, count;
  const std::vector<int64_t>& boundaries;
};

// The plan as one range of heads, or two.
[[nodiscard]] std::vector<HeadRange> head_ranges(const GroupPlan& plan);

namespace reference {
void forward(const AttentionForward& a);
void backward(const AttentionBackward& a);
}  // namespace reference

namespace sdpa {
// Why LibTorch's flash attention cannot do this; null when it can.
[[nodiscard]] const char* objection(const at::Tensor& q, const GroupPlan& plan);
void forward(const AttentionForward& a);
void backward(const AttentionBackward& a);
}  // namespace sdpa

namespace cudnn {
// Why cuDNN through LibTorch cannot do this; null when it can.
[[nodiscard]] const char* objection(const at::Tensor& q, const GroupPlan& plan);
void forward(const AttentionForward& a);
void backward(const AttentionBackward& a);
}  // namespace cudnn

namespace cpu_attention {
// Why the CPU kernels cannot do this; null when they can.
[[nodiscard]] const char* objection(const at::Tensor& q);
// `kernels`: an instruction set's, this machine's by default.
void forward(const AttentionForward& a, const cpu::Kernels& kernels = cpu_kernels());
void backward(const AttentionBackward& a, const cpu::Kernels& kernels = cpu_kernels());
}  // namespace cpu_attention

namespace cuda_attention {
// Why the kernels of cuda/ cannot do this; null when they can.
[[nodiscard]] const char* objection(const at::Tensor& q);
void forward(const AttentionForward& a);
void backward(const AttentionBackward& a);
}  // namespace cuda_attention

}  // namespace longlora::ops

// Causal softmax attention inside the segments of a GroupPlan, forward and backward:
//
//   s_ij = q_i . k_j / sqrt(D)   for keys j of i's segment with j <= i (and i - j < window)
//   out_i = sum_j p_ij v_j,  p_ij = exp(s_ij - lse_i),  lse_i = log sum_j exp(s_ij)
//
// The backward pass needs q, k, v, out and lse only (FlashAttention-2, arXiv 2307.08691, algorithm 2). Query
// head h reads KV head h / (Hq / Hkv); keys and values are never expanded. T: tokens of the batch, D: head
// size.
#pragma once
#include <ATen/ATen.h>

#include <string>

#include "core/ops/group_plan.h"

namespace longlora::ops {

enum class AttentionBackend {
  automatic,  // the fastest one that can do what is asked
  reference,  // plain tensor operations, float32 sums (float64 for float64): any device, type and plan
  sdpa,       // LibTorch's flash attention
  cpu,        // core/ops/cpu/attention*.cpp
  cuda,       // cuda/attention*.cu, both halves of the heads in one launch
  cudnn,      // cuDNN through LibTorch
};

// The recipe's names: auto, reference, sdpa, cpu, cuda, cudnn. Another name is a usage error.
[[nodiscard]] AttentionBackend parse_backend(const std::string& name);
[[nodiscard]] const char* to_string(AttentionBackend backend);

struct AttentionResult {
  at::Tensor out;  // [T, Hq, D], type of q
  at::Tensor lse;  // [Hq, T], float32 (float64 for float64)
};

// Why a backend cannot do what is asked; null when it can.
[[nodiscard]] const char* objection(AttentionBackend backend, const at::Tensor& q, const GroupPlan& plan);

// Exit 2 where it cannot.
void check_backend(AttentionBackend backend, const at::Tensor& q, const GroupPlan& plan);

// What `automatic` stands for with these tensors and this plan.
[[nodiscard]] AttentionBackend pick_backend(const at::Tensor& q, const GroupPlan& plan);

// q [T, Hq, D], k and v [T, Hkv, D], already turned by RoPE; any strides with the innermost 1 (views of one
// buffer). A backend that cannot do what is asked is a usage error.
[[nodiscard]] AttentionResult attention_forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                                const GroupPlan& plan,
                                                AttentionBackend backend = AttentionBackend::automatic);

// The same into memory that is there: out [T, Hq, D] and lse [Hq, T] contiguous in T.
void attention_forward_into(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const GroupPlan& plan,
                            const at::Tensor& out, const at::Tensor& lse,
                            AttentionBackend backend = AttentionBackend::automatic);

// Writes dq [T, Hq, D], dk and dv [T, Hkv, D] (any strides with the innermost 1) from dout [T, Hq, D].
// Deterministic for every backend but `sdpa` on a GPU and `cudnn`.
void attention_backward(const at::Tensor& dout, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                        const AttentionResult& saved, const GroupPlan& plan, const at::Tensor& dq, const at::Tensor& dk,
                        const at::Tensor& dv, AttentionBackend backend = AttentionBackend::automatic);

}  // namespace longlora::ops

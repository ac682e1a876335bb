// Attention over a sequence that is shared out over the ranks of a group (core/dist/sequence_plan.h), forward and backward.
//
// Forward, in step k: what the next step needs is under way while this one's rectangles are computed, and the first messages
// while the rank attends inside its own pieces. Parts of a softmax are joined in float32 (float64 for float64), and rounded once
// more at the end. Backward, keys and values are sent once more, so that they are never held beyond a step; the gradients of
// keys and values go back to their owner, in the type of the keys, a step after these, and are summed in float32 there.
// The order of all sums is the plan's: repeated runs agree bit for bit.
#pragma once
#include "core/dist/group.h"
#include "core/dist/sequence_plan.h"
#include "core/ops/attention.h"

namespace longlora::dist {

// As ops::attention_forward and attention_backward, with q, k, v and all else of this rank's tokens. Every rank of the group
// calls them together.
[[nodiscard]] ops::AttentionResult sequence_attention_forward(const at::Tensor& q, const at::Tensor& k,
                                                              const at::Tensor& v, const SequencePlan& plan,
                                                              Group& group, ops::AttentionBackend backend);

void sequence_attention_backward(const at::Tensor& dout, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                 const ops::AttentionResult& saved, const SequencePlan& plan, Group& group,
                                 const at::Tensor& dq, const at::Tensor& dk, const at::Tensor& dv,
                                 ops::AttentionBackend backend);

}  // namespace longlora::dist

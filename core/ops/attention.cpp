#include "core/ops/attention.h"

#include "core/base/error.h"
#include "core/ops/attention_backends.h"
#include "core/ops/sum_type.h"

namespace longlora::ops {
namespace {

void check(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const GroupPlan& plan) {
  const auto shaped = [&](const at::Tensor& x, int64_t heads) {
    return x.dim() == 3 && x.size(0) == plan.tokens && x.size(1) == heads && x.size(2) == q.size(2) &&
           x.stride(2) == 1 && x.scalar_type() == q.scalar_type() && x.device() == q.device();
  };
  if (q.dim() != 3 || !shaped(q, plan.heads) || !shaped(k, plan.kv_heads) || !shaped(v, plan.kv_heads)) {
    fail(
        "attention: q, k, v of {} tokens, {} heads and {} KV heads expected, of one type on one device, "
        "innermost "
        "stride 1",
        plan.tokens, plan.heads, plan.kv_heads);
  }
}

AttentionBackend resolve(AttentionBackend backend, const at::Tensor& q, const GroupPlan& plan) {
  if (backend == AttentionBackend::automatic) return pick_backend(q, plan);
  check_backend(backend, q, plan);
  return backend;
}

}  // namespace

AttentionBackend parse_backend(const std::string& name) {
  for (const auto backend : {AttentionBackend::automatic, AttentionBackend::reference, AttentionBackend::sdpa,
                             AttentionBackend::cpu, AttentionBackend::cuda, AttentionBackend::cudnn}) {
    if (name == to_string(backend)) return backend;
  }
  usage_error("attention.backend: unknown backend \"{}\"; known are auto, reference, sdpa, cpu, cuda and cudnn", name);
}

const char* to_string(AttentionBackend backend) {
  switch (backend) {
    case AttentionBackend::automatic:
      return "auto";
    case AttentionBackend::reference:
      return "reference";
    case AttentionBackend::sdpa:
      return "sdpa";
    case AttentionBackend::cpu:
      return "cpu";
    case AttentionBackend::cuda:
      return "cuda";
    case AttentionBackend::cudnn:
      return "cudnn";
  }
  return "";
}

const char* objection(AttentionBackend backend, const at::Tensor& q, const GroupPlan& plan) {
  if (backend == AttentionBackend::sdpa) return sdpa::objection(q, plan);
  if (backend == AttentionBackend::cpu) return cpu_attention::objection(q);
  if (backend == AttentionBackend::cuda) return cuda_attention::objection(q);
  if (backend == AttentionBackend::cudnn) return cudnn::objection(q, plan);
  return nullptr;
}

void check_backend(AttentionBackend backend, const at::Tensor& q, const GroupPlan& plan) {
  if (const char* why = objection(backend, q, plan); why != nullptr)
    usage_error("attention.backend \"{}\" cannot be used here: {}; choose \"auto\"", to_string(backend), why);
}

AttentionBackend pick_backend(const at::Tensor& q, const GroupPlan& plan) {
  if (cpu_attention::objection(q) == nullptr) return AttentionBackend::cpu;
  if (sdpa::objection(q, plan) == nullptr) return AttentionBackend::sdpa;
  return AttentionBackend::reference;
}

std::vector<HeadRange> head_ranges(const GroupPlan& plan) {
  if (plan.uniform() || plan.plain_heads == plan.heads) return {{0, plan.heads, plan.plain}};
  return {{0, plan.plain_heads, plan.plain}, {plan.plain_heads, plan.heads - plan.plain_heads, plan.shifted}};
}

AttentionResult attention_forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const GroupPlan& plan,
                                  AttentionBackend backend) {
  AttentionResult result{at::empty(q.sizes(), q.options()),
                         at::empty({plan.heads, plan.tokens}, q.options().dtype(sum_type(q)))};
  attention_forward_into(q, k, v, plan, result.out, result.lse, backend);
  return result;
}

void attention_forward_into(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const GroupPlan& plan,
                            const at::Tensor& out, const at::Tensor& lse, AttentionBackend backend) {
  check(q, k, v, plan);
  const AttentionForward arguments{q, k, v, out, lse, plan};
  switch (resolve(backend, q, plan)) {
    case AttentionBackend::sdpa:
      return sdpa::forward(arguments);
    case AttentionBackend::cpu:
      return cpu_attention::forward(arguments);
    case AttentionBackend::cuda:
      return cuda_attention::forward(arguments);
    case AttentionBackend::cudnn:
      return cudnn::forward(arguments);
    default:
      return reference::forward(arguments);
  }
}

void attention_backward(const at::Tensor& dout, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                        const AttentionResult& saved, const GroupPlan& plan, const at::Tensor& dq, const at::Tensor& dk,
                        const at::Tensor& dv, AttentionBackend backend) {
  check(q, k, v, plan);
  check(dq, dk, dv, plan);
  const AttentionBackward arguments{dout, q, k, v, saved.out, saved.lse, dq, dk, dv, plan};
  switch (resolve(backend, q, plan)) {
    case AttentionBackend::sdpa:
      return sdpa::backward(arguments);
    case AttentionBackend::cpu:
      return cpu_attention::backward(arguments);
    case AttentionBackend::cuda:
      return cuda_attention::backward(arguments);
    case AttentionBackend::cudnn:
      return cudnn::backward(arguments);
    default:
      return reference::backward(arguments);
  }
}

}  // namespace longlora::ops

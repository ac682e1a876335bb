// Attention by the kernels in core/ops/cpu: cuts the work into tasks and lets the threads take them, largest
// first.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <vector>

#include "core/ops/attention_backends.h"
#include "core/ops/cpu_kernels.h"

namespace longlora::ops::cpu_attention {
namespace {

cpu::HeadMatrix matrix(const at::Tensor& x) {
  return {x.data_ptr(), x.stride(0), x.stride(1)};
}

cpu::Attention arguments(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& out,
                         const at::Tensor& lse, const GroupPlan& plan) {
  return {matrix(q),      matrix(k),
          matrix(v),      matrix(out),
          lse.data_ptr(), lse.stride(0),
          q.size(2),      plan.heads / plan.kv_heads,
          plan.window,    1 / std::sqrt(static_cast<double>(q.size(2)))};
}

// Threads take tasks one after the other, so that the long ones at the front are under way first; which
// thread does a task changes nothing in its result.
template <class Run>
void run_all(std::vector<cpu::AttentionTask>& tasks, int64_t scratch_bytes, Run&& run) {
  const auto work = [](const cpu::AttentionTask& t) {
    return (t.to - t.from) * (t.from + t.to - 2 * t.begin) * t.heads;
  };
  std::stable_sort(tasks.begin(), tasks.end(), [&](const auto& a, const auto& b) { return work(a) > work(b); });
  const int64_t count = static_cast<int64_t>(tasks.size());
  const int64_t threads = std::min<int64_t>(count, at::in_parallel_region() ? 1 : at::get_num_threads());
  const int64_t stride = (scratch_bytes + 63) / 64 * 64;
  const at::Tensor scratch = at::empty({threads * stride}, at::kByte);  // aligned to 64 as all tensors on the CPU
  std::atomic<int64_t> next = 0;
  at::parallel_for(0, threads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t thread = begin; thread < end; ++thread) {
      char* mine = static_cast<char*>(scratch.data_ptr()) + thread * stride;
      for (int64_t i = next++; i < count; i = next++) run(tasks[i], mine);
    }
  });
}

int64_t longest_segment(const std::vector<cpu::AttentionTask>& tasks) {
  int64_t longest = 0;
  for (const cpu::AttentionTask& task : tasks) longest = std::max(longest, task.end - task.begin);
  return longest;
}

}  // namespace

const char* objection(const at::Tensor& q) {
  return cpu_element(q) ? nullptr : "the CPU kernels take float64, float32 and bfloat16 in the CPU's memory";
}

void forward(const AttentionForward& a, const cpu::Kernels& kernels) {
  const cpu::Element element = *cpu_element(a.q);
  std::vector<cpu::AttentionTask> tasks;
  for (const HeadRange& range : head_ranges(a.plan)) {
    for (size_t s = 0; s + 1 < range.boundaries.size(); ++s) {
      const int64_t begin = range.boundaries[s], end = range.boundaries[s + 1];
      for (int64_t head = range.first; head < range.first + range.count; ++head) {
        for (int64_t from = begin; from < end; from += cpu::kAttentionQueries) {
          tasks.push_back({begin, end, from, std::min(from + cpu::kAttentionQueries, end), head, 1});
        }
      }
    }
  }
  const cpu::Attention attention = arguments(a.q, a.k, a.v, a.out, a.lse, a.plan);
  run_all(tasks, kernels.attention_forward_scratch(element, a.q.size(2)),
          [&](const cpu::AttentionTask& task, void* scratch) {
            kernels.attention_forward(element, attention, task, scratch);
          });
}

void backward(const AttentionBackward& a, const cpu::Kernels& kernels) {
  const cpu::Element element = *cpu_element(a.q);
  const int64_t ratio = a.plan.heads / a.plan.kv_heads;
  // A KV head whose query heads lie in both halves gets gradients from two cuts; the second goes to memory of
  // its own.
  const bool shared = !a.plan.uniform() && a.plan.plain_heads % ratio != 0;
  const int64_t shared_kv = a.plan.plain_heads / ratio;
  at::Tensor other_dk, other_dv;
  if (shared) {
    other_dk = at::empty({a.plan.tokens, 1, a.q.size(2)}, a.q.options());
    other_dv = at::empty_like(other_dk);
  }
  std::vector<cpu::AttentionTask> tasks;
  for (const HeadRange& range : head_ranges(a.plan)) {
    const int64_t last = range.first + range.count;
    for (size_t s = 0; s + 1 < range.boundaries.size(); ++s) {
      const int64_t begin = range.boundaries[s], end = range.boundaries[s + 1];
      for (int64_t head = range.first, next; head < last; head = next) {
        next = std::min((head / ratio + 1) * ratio, last);
        tasks.push_back({begin, end, begin, end, head, next - head});
      }
    }
  }
  const cpu::AttentionBackward whole = {arguments(a.q, a.k, a.v, a.out, a.lse, a.plan), matrix(a.dout), matrix(a.dq),
                                        matrix(a.dk), matrix(a.dv)};
  cpu::AttentionBackward second = whole;
  if (shared) {
    second.dk = {other_dk.data_ptr(), other_dk.stride(0), 0};
    second.dv = {other_dv.data_ptr(), other_dv.stride(0), 0};
  }
  run_all(tasks, kernels.attention_backward_scratch(element, a.q.size(2), longest_segment(tasks)),
          [&](const cpu::AttentionTask& task, void* scratch) {
            const bool beside = shared && task.head == a.plan.plain_heads;
            kernels.attention_backward(element, beside ? second : whole, task, scratch);
          });
  if (shared) {
    a.dk.narrow(1, shared_kv, 1).add_(other_dk);
    a.dv.narrow(1, shared_kv, 1).add_(other_dv);
  }
}

}  // namespace longlora::ops::cpu_attention

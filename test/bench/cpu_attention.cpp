// Attention on the CPU side by side with LibTorch's flash attention, in one run: the median time of each,
// interleaved, as GFLOP/s of the pairs that the causal mask leaves (forward 4 D a pair and head, backward 10
// D).
#include <chrono>
#include <cstdio>

#include "core/ops/attention.h"
#include "core/ops/cpu_kernels.h"

using namespace longlora::ops;

namespace {

struct Shape {
  const char* what;
  int64_t tokens, group, heads, kv_heads, head_dim;
  at::ScalarType type = at::kBFloat16;
};

constexpr int kRuns = 9;

double seconds(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double median(std::vector<double> times) {
  std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
  return times[times.size() / 2];
}

double visible_pairs(const GroupPlan& plan) {
  double pairs = 0;
  for (int64_t h = 0; h < plan.heads; ++h) {
    const auto& cut = h < plan.plain_heads ? plan.plain : plan.shifted;
    for (size_t s = 0; s + 1 < cut.size(); ++s) {
      const double n = double(cut[s + 1] - cut[s]);
      pairs += n * (n + 1) / 2;
    }
  }
  return pairs;
}

void measure(const Shape& shape) {
  const std::vector<int64_t> documents = {0, shape.tokens};
  const GroupPlan plan = shape.group == 0 ? GroupPlan::full(documents, shape.heads, shape.kv_heads)
                                          : GroupPlan::s2(documents, shape.group, shape.heads, shape.kv_heads);
  const int64_t rows = shape.heads + 2 * shape.kv_heads;
  const at::Tensor buffer = at::randn({shape.tokens, rows, shape.head_dim}).to(shape.type);
  const at::Tensor grad = at::zeros_like(buffer);
  const auto part = [&](const at::Tensor& x, int i) {
    const int64_t first[] = {0, shape.heads, shape.heads + shape.kv_heads};
    return x.narrow(1, first[i], i == 0 ? shape.heads : shape.kv_heads);
  };
  const at::Tensor q = part(buffer, 0), k = part(buffer, 1), v = part(buffer, 2);
  const at::Tensor dout = at::randn({shape.tokens, shape.heads, shape.head_dim}).to(shape.type);
  const AttentionBackend backends[] = {AttentionBackend::cpu, AttentionBackend::sdpa};
  AttentionResult saved[2];
  std::vector<double> forward[2], backward[2];
  for (int run = 0; run < kRuns; ++run) {
    for (int b = 0; b < 2; ++b) {
      if (run == 0) saved[b] = attention_forward(q, k, v, plan, backends[b]);
      forward[b].push_back(
          seconds([&] { attention_forward_into(q, k, v, plan, saved[b].out, saved[b].lse, backends[b]); }));
      backward[b].push_back(seconds([&] {
        attention_backward(dout, q, k, v, saved[b], plan, part(grad, 0), part(grad, 1), part(grad, 2), backends[b]);
      }));
    }
  }
  const double flops = visible_pairs(plan) * double(shape.head_dim) * 1e-9;
  const double ours_f = median(forward[0]), ours_b = median(backward[0]), its_f = median(forward[1]),
               its_b = median(backward[1]);
  std::printf("%-34s %8.0f %8.0f %8.0f   %8.0f %8.0f %8.0f   %6.2f\n", shape.what, 4 * flops / ours_f,
              10 * flops / ours_b, 14 * flops / (ours_f + ours_b), 4 * flops / its_f, 10 * flops / its_b,
              14 * flops / (its_f + its_b), (its_f + its_b) / (ours_f + ours_b));
}

}  // namespace

int main() {
  std::printf("threads %d, kernels %s; GFLOP/s\n%-34s %26s   %26s   %6s\n%-34s %8s %8s %8s   %8s %8s %8s\n",
              at::get_num_threads(), cpu_kernels().name, "", "ours", "LibTorch", "ratio", "", "forward", "backward",
              "both", "forward", "backward", "both");
  for (const Shape& shape : {
           Shape{"4096, groups of 1024, 12 x 64", 4096, 1024, 12, 12, 64},
           Shape{"4096, groups of 1024, 8 x 128", 4096, 1024, 8, 8, 128},
           Shape{"4096, groups of 1024, 8/2 x 128", 4096, 1024, 8, 2, 128},
           Shape{"4096, full, 4 x 64", 4096, 0, 4, 4, 64},
           Shape{"2048, groups of 512, 4 x 48", 2048, 512, 4, 4, 48},
           Shape{"2048, groups of 256, 4 x 48", 2048, 256, 4, 4, 48},
           Shape{"2048, groups of 64, 4 x 48", 2048, 64, 4, 4, 48},
           Shape{"1000, groups of 250, 12 x 64", 1000, 250, 12, 12, 64},
           Shape{"4096, groups of 1024, 4 x 64, f32", 4096, 1024, 4, 4, 64, at::kFloat},
       }) {
    measure(shape);
  }
}

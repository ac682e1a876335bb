#include "test/kernels/attention_reference.h"

#include <algorithm>
#include <cmath>

namespace longlora::cuda::test {
namespace {

double dot(const double* a, const double* b, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

void add(double* to, double factor, const double* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] += factor * x[i];
}

void round_all(Cube& x, Round round) {
  for (double& value : x.data) value = round(value);
}

}  // namespace

Attention attention(const ops::GroupPlan& plan, double scale, const Cube& q, const Cube& k, const Cube& v,
                    const Cube& dout, Round round) {
  const int64_t tokens = plan.tokens, heads = plan.heads, size = q.size, group = heads / plan.kv_heads;
  Attention result{Cube(tokens, heads, size), Cube(tokens, heads, size), Cube(tokens, plan.kv_heads, size),
                   Cube(tokens, plan.kv_heads, size), std::vector<double>(static_cast<size_t>(heads * tokens))};
  std::vector<double> p, dp;
  for (int64_t h = 0; h < heads; ++h) {
    const int64_t kv = h / group;
    Cube dk(tokens, 1, size), dv(tokens, 1, size);  // of this head alone: plain operations expand K and V
    const std::vector<int64_t>& cut = h < plan.plain_heads ? plan.plain : plan.shifted;
    size_t segment = 0;
    for (int64_t i = 0; i < tokens; ++i) {
      while (cut[segment + 1] <= i) ++segment;
      const int64_t first = plan.window > 0 ? std::max(cut[segment], i - plan.window + 1) : cut[segment];
      const int64_t n = i - first + 1;
      p.assign(static_cast<size_t>(n), 0);
      dp.assign(static_cast<size_t>(n), 0);
      double most = -INFINITY, sum = 0, weighted = 0;
      for (int64_t j = 0; j < n; ++j) {
        p[j] = round(round(dot(q.at(i, h), k.at(first + j, kv), size)) * scale);
        most = std::max(most, p[j]);
      }
      for (int64_t j = 0; j < n; ++j) sum += std::exp(p[j] - most);
      result.lse[h * tokens + i] = most + std::log(sum);
      for (int64_t j = 0; j < n; ++j) p[j] = round(std::exp(p[j] - most) / sum);
      for (int64_t j = 0; j < n; ++j) {
        add(result.out.at(i, h), p[j], v.at(first + j, kv), size);
        dp[j] = round(dot(dout.at(i, h), v.at(first + j, kv), size));
        weighted += p[j] * dp[j];
      }
      for (int64_t j = 0; j < n; ++j) {
        const double ds = round(round(p[j] * (dp[j] - weighted)) * scale);
        add(result.dq.at(i, h), ds, k.at(first + j, kv), size);
        add(dk.at(first + j, 0), ds, q.at(i, h), size);
        add(dv.at(first + j, 0), p[j], dout.at(i, h), size);
      }
    }
    round_all(dk, round);
    round_all(dv, round);
    for (int64_t t = 0; t < tokens; ++t) {
      add(result.dk.at(t, kv), 1, dk.at(t, 0), size);
      add(result.dv.at(t, kv), 1, dv.at(t, 0), size);
    }
  }
  for (Cube* cube : {&result.out, &result.dq, &result.dk, &result.dv}) round_all(*cube, round);
  return result;
}

}  // namespace longlora::cuda::test

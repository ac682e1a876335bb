// How fast the attention kernels are on this GPU: longlora_attention_bench [tokens ...]. Heads and sizes of Llama-2 7B
// (32 x 128) and Llama-3 8B (32 / 8 x 128) in bfloat16, S2-Attn with groups of a quarter, and full attention. Prints milliseconds and
// TFLOP/s as FlashAttention counts them: 4 D operations a visible pair forward, 10 D backward.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "cuda/attention.h"
#include "test/bench/cuda_bench.cuh"

using namespace longlora::cuda;

namespace {

std::vector<int64_t> cut(int64_t tokens, int64_t first, int64_t step) {
  std::vector<int64_t> boundaries = {0};
  for (int64_t at = first; at < tokens; at += step) boundaries.push_back(at);
  boundaries.push_back(tokens);
  return boundaries;
}

double pairs(const std::vector<int64_t>& cut) {
  double sum = 0;
  for (size_t i = 0; i + 1 < cut.size(); ++i) {
    const double n = static_cast<double>(cut[i + 1] - cut[i]);
    sum += n * (n + 1) / 2;
  }
  return sum;
}

void measure(int64_t tokens, int64_t kv_heads, int64_t group) {
  constexpr int64_t kHeads = 32, kSize = 128;
  AttentionShape shape;
  shape.tokens = tokens;
  shape.heads = kHeads;
  shape.kv_heads = kv_heads;
  shape.plain_heads = kHeads / 2;
  shape.head_size = kSize;
  shape.scale = 0.08838834764f;
  const std::vector<int64_t> plain = cut(tokens, group, group), shifted = cut(tokens, group / 2, group);
  const bool full = group >= tokens;
  const QuerySchedule query_list = query_schedule(shape, plain, full ? plain : shifted);
  const KeySchedule key_list = key_schedule(shape, plain, full ? plain : shifted);
  const DeviceArray<QueryTile> query_tiles(query_list.tiles);
  const DeviceArray<KeyTile> key_tiles(key_list.tiles);
  const QueryWork queries{query_tiles.data(), static_cast<int64_t>(query_list.tiles.size()), query_list.heads};
  const KeyWork keys{key_tiles.data(), static_cast<int64_t>(key_list.tiles.size()), key_list.heads};

  const int64_t row = (kHeads + 2 * kv_heads) * kSize;  // q, k and v side by side, as the layer has them
  const DeviceArray<bf16> qkv(tokens * row), grads(tokens * row), out(tokens * kHeads * kSize),
      dout(tokens * kHeads * kSize);
  const DeviceArray<float> lse(tokens * kHeads), delta(tokens * kHeads), dq_sum(tokens * kHeads * kSize);
  const auto view = [&](const DeviceArray<bf16>& x, int64_t head) {
    return ConstHeads{x.data() + head * kSize, row, kSize};
  };
  const auto target = [&](int64_t head) { return Heads{grads.data() + head * kSize, row, kSize}; };
  const Heads out_target{out.data(), kHeads * kSize, kSize};
  const ConstHeads out_view{out.data(), kHeads * kSize, kSize}, dout_view{dout.data(), kHeads * kSize, kSize};

  const double forward = milliseconds([&] {
    attention_forward(shape, queries, view(qkv, 0), view(qkv, kHeads), view(qkv, kHeads + kv_heads), out_target,
                      lse.data(), nullptr);
  });
  const auto backward = [&](float* sum) {
    attention_backward(shape, queries, keys, dout_view, view(qkv, 0), view(qkv, kHeads), view(qkv, kHeads + kv_heads),
                       out_view, lse.data(), delta.data(), sum, target(0), target(kHeads), target(kHeads + kv_heads),
                       nullptr);
  };
  const double fast = milliseconds([&] { backward(dq_sum.data()); }), same = milliseconds([&] { backward(nullptr); });
  const double work = kHeads / 2 * (pairs(plain) + pairs(full ? plain : shifted)) * kSize * 1e-9;  // TFLOP in a ms
  std::printf("%7lld  %-5s %2lld/%-2lld  %9.3f %7.1f  %9.3f %7.1f  %9.3f %7.1f\n", static_cast<long long>(tokens),
              full ? "full" : "S2", static_cast<long long>(kHeads), static_cast<long long>(kv_heads), forward,
              4 * work / forward, fast, 10 * work / fast, same, 10 * work / same);
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  return on_a_gpu([&] {
    cudaDeviceProp device;
    check(cudaGetDeviceProperties(&device, 0));
    std::printf(
        "%s, bfloat16, head size 128\n tokens         heads   forward ms  TFLOP/s  backward ms TFLOP/s  "
        "deterministic\n",
        device.name);
    std::vector<int64_t> lengths;
    for (int i = 1; i < argc; ++i) lengths.push_back(std::atoll(argv[i]));
    if (lengths.empty()) lengths = {8192, 16384, 32768, 65536, 102400};
    for (const int64_t tokens : lengths) {
      for (const int64_t kv_heads : {32, 8}) {
        measure(tokens, kv_heads, tokens / 4);
        measure(tokens, kv_heads, tokens);
      }
    }
  });
}

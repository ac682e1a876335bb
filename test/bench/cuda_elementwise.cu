// How near the elementwise kernels come to what this GPU's memory can do: longlora_elementwise_bench [tokens]. Shapes of
// Llama-2 7B in bfloat16. Prints milliseconds, GB/s by the bytes that each kernel's header counts, and the share of the
// rate at which the driver copies memory. Without a GPU it says so and measures nothing.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "cuda/adamw.h"
#include "cuda/cast.h"
#include "cuda/cross_entropy.h"
#include "cuda/dropout.h"
#include "cuda/embedding.h"
#include "cuda/rmsnorm.h"
#include "cuda/rotary.h"
#include "cuda/swiglu.h"
#include "test/bench/cuda_bench.cuh"

using namespace longlora::cuda;

namespace {

double copy_rate = 0;  // bytes a millisecond, read and written

template <class Body>
void measure(const char* name, double bytes, Body&& body) {
  const double ms = milliseconds(body);
  std::printf("%-34s %9.3f  %7.0f  %4.0f %%\n", name, ms, bytes / ms * 1e-6, 100 * bytes / ms / copy_rate);
  std::fflush(stdout);
}

constexpr int64_t kHidden = 4096, kIntermediate = 11008, kHeads = 32, kHeadDim = 128;

void measure_norm(int64_t tokens) {
  const DeviceArray<bf16> x(tokens * kHidden), residual(tokens * kHidden), y(tokens * kHidden), w(kHidden);
  const DeviceArray<float> rstd(tokens), dw(kHidden), work(rmsnorm_blocks(tokens) * kHidden);
  RmsNormForward forward{.rows = tokens, .d = kHidden, .eps = 1e-5f, .x = x.data(), .x_row = kHidden};
  forward.w = w.data();
  forward.y = y.data();
  forward.y_row = kHidden;
  forward.rstd = rstd.data();
  const double matrix = 2.0 * static_cast<double>(tokens * kHidden);
  measure("rmsnorm", 2 * matrix, [&] { rmsnorm_forward(forward, nullptr); });
  forward.residual = residual.data();
  forward.residual_row = kHidden;
  measure("rmsnorm, with a residual", 4 * matrix, [&] { rmsnorm_forward(forward, nullptr); });
  RmsNormBackward backward{.rows = tokens, .d = kHidden, .x = x.data(), .x_row = kHidden};
  backward.w = w.data();
  backward.rstd = rstd.data();
  backward.dy = y.data();
  backward.dy_row = kHidden;
  backward.residual = residual.data();
  backward.residual_row = kHidden;
  backward.dx = residual.data();
  backward.dx_row = kHidden;
  measure("rmsnorm backward", 4 * matrix, [&] { rmsnorm_backward(backward, nullptr); });
  backward.dw = dw.data();
  backward.work = work.data();
  measure("rmsnorm backward, with the weight", 4 * matrix + 8.0 * static_cast<double>(rmsnorm_blocks(tokens) * kHidden),
          [&] { rmsnorm_backward(backward, nullptr); });
}

void measure_rotary(int64_t tokens) {
  const int64_t row = 3 * kHeads * kHeadDim;
  std::vector<int32_t> places(tokens);
  for (int64_t i = 0; i < tokens; ++i) places[i] = static_cast<int32_t>(i);
  const DeviceArray<bf16> qkv(tokens * row);
  const DeviceArray<int32_t> positions(places);
  const DeviceArray<float> cos(tokens * kHeadDim / 2), sin(tokens * kHeadDim / 2);
  const Rotary arguments{.tokens = tokens,
                         .heads = 2 * kHeads,
                         .head_dim = kHeadDim,
                         .x = qkv.data(),
                         .token = row,
                         .head = kHeadDim,
                         .positions = positions.data(),
                         .cos = cos.data(),
                         .sin = sin.data()};
  measure("rotary, queries and keys", 4.0 * static_cast<double>(tokens * 2 * kHeads * kHeadDim),
          [&] { rotate_in_place(arguments, nullptr); });
}

void measure_swiglu(int64_t tokens) {
  const DeviceArray<bf16> gate_up(tokens * 2 * kIntermediate), m(tokens * kIntermediate);
  const double matrix = 2.0 * static_cast<double>(tokens * kIntermediate);
  measure("swiglu", 3 * matrix, [&] {
    swiglu_forward({.rows = tokens,
                    .n = kIntermediate,
                    .gate_up = gate_up.data(),
                    .gate_up_row = 2 * kIntermediate,
                    .m = m.data(),
                    .m_row = kIntermediate},
                   nullptr);
  });
  measure("swiglu backward", 5 * matrix, [&] {
    swiglu_backward_in_place({.rows = tokens,
                              .n = kIntermediate,
                              .gate_up = gate_up.data(),
                              .gate_up_row = 2 * kIntermediate,
                              .dm = m.data(),
                              .dm_row = kIntermediate},
                             nullptr);
  });
}

void measure_cross_entropy(int64_t vocab) {
  const int64_t rows = 4096;
  const DeviceArray<bf16> logits(rows * vocab);
  const DeviceArray<int32_t> targets(std::vector<int32_t>(rows, 7));
  const DeviceArray<float> losses(rows);
  CrossEntropy arguments{
      .rows = rows, .vocab = vocab, .logits = logits.data(), .row = vocab, .targets = targets.data()};
  arguments.losses = losses.data();
  const double matrix = 2.0 * static_cast<double>(rows * vocab);
  char name[64];
  std::snprintf(name, sizeof(name), "cross-entropy, %lld", static_cast<long long>(vocab));
  measure(name, matrix, [&] { cross_entropy(arguments, nullptr); });
  arguments.gradient = true;
  std::snprintf(name, sizeof(name), "cross-entropy, %lld, gradient", static_cast<long long>(vocab));
  measure(name, 3 * matrix, [&] { cross_entropy(arguments, nullptr); });
}

void measure_embedding(int64_t tokens) {
  std::vector<int32_t> ids(tokens);
  for (int64_t i = 0; i < tokens; ++i) {  // few tokens often, many seldom: 32000^(a number in [0, 1))
    const double u = static_cast<double>((i + 1) * 0x9e3779b97f4a7c15ULL >> 11) * 0x1p-53;
    ids[i] = static_cast<int32_t>(std::pow(32000.0, u)) - 1;
  }
  const TokenRuns runs = token_runs(ids);
  const auto count = static_cast<int64_t>(runs.runs.size());
  const DeviceArray<int64_t> order(runs.order);
  const DeviceArray<TokenRun> run(runs.runs);
  const DeviceArray<bf16> dx(tokens * kHidden);
  const DeviceArray<float> table(32000 * kHidden);
  measure("embedding gradient", static_cast<double>(kHidden) * static_cast<double>(2 * tokens + 8 * count), [&] {
    embedding_backward({.d = kHidden,
                        .dx = dx.data(),
                        .dx_row = kHidden,
                        .order = order.data(),
                        .runs = run.data(),
                        .run_count = count,
                        .dtable = table.data(),
                        .dtable_row = kHidden},
                       nullptr);
  });
}

// What LoRA with embedding and norms trains of Llama-2 7B: 2 large tensors, 65 norms, 256 small matrices.
void measure_adamw() {
  std::vector<int64_t> counts(2, 32000 * kHidden);
  counts.insert(counts.end(), 65, kHidden);
  counts.insert(counts.end(), 256, 8 * kHidden);
  int64_t total = 0;
  for (const int64_t n : counts) total += n;
  const DeviceArray<float> master(total), gradient(total), first(total), second(total);
  const DeviceArray<bf16> value(total);
  std::vector<AdamWTensor> tensors;
  for (int64_t i = 0, at = 0; i < static_cast<int64_t>(counts.size()); at += counts[i++]) {
    tensors.push_back({.master = master.data() + at,
                       .gradient = gradient.data() + at,
                       .first = first.data() + at,
                       .second = second.data() + at,
                       .count = counts[i],
                       .value = value.data() + at,
                       .columns = counts[i],
                       .value_row = counts[i]});
  }
  const std::vector<AdamWChunk> all = adamw_chunks(tensors);
  const DeviceArray<AdamWTensor> table(tensors);
  const DeviceArray<AdamWChunk> chunks(all);
  const DeviceArray<double> partial(static_cast<int64_t>(all.size()));
  const DeviceArray<GradientNorm> norm(1);
  const AdamWWork work{table.data(), chunks.data(), static_cast<int64_t>(all.size())};
  measure("gradient norm, 263 M", 4.0 * static_cast<double>(total),
          [&] { gradient_norm(work, 1.0, partial.data(), norm.data(), nullptr); });
  measure("adamw, 263 M in 323 tensors", 34.0 * static_cast<double>(total),
          [&] { adamw(work, {.lr = 1e-5}, norm.data(), nullptr); });
}

void measure_small_ones(int64_t tokens) {
  const DeviceArray<bf16> x(tokens * kHidden), y(tokens * kHidden);
  const DeviceArray<float> wide(tokens * kHidden);
  const auto elements = static_cast<double>(tokens * kHidden);
  measure("dropout", 4 * elements, [&] {
    dropout({.rows = tokens,
             .d = kHidden,
             .x = x.data(),
             .x_row = kHidden,
             .y = y.data(),
             .y_row = kHidden,
             .p = 0.05,
             .seed = 1},
            nullptr);
  });
  measure("float32 to bfloat16", 6 * elements,
          [&] { cast(Element::float32, wide.data(), Element::bfloat16, x.data(), tokens * kHidden, nullptr); });
  measure("bfloat16 to float32", 6 * elements,
          [&] { cast(Element::bfloat16, x.data(), Element::float32, wide.data(), tokens * kHidden, nullptr); });
}

}  // namespace

int main(int argc, char** argv) {
  return on_a_gpu([&] {
    const int64_t tokens = argc > 1 ? std::atoll(argv[1]) : 16384;
    cudaDeviceProp device;
    check(cudaGetDeviceProperties(&device, 0));
    {
      const int64_t bytes = int64_t{1} << 30;
      const DeviceArray<char> from(bytes), to(bytes);
      copy_rate = 2.0 * static_cast<double>(bytes) / milliseconds([&] {
                    check(cudaMemcpyAsync(to.data(), from.data(), bytes, cudaMemcpyDeviceToDevice));
                  });
    }
    std::printf("%s, copies %.0f GB/s; %lld tokens, bfloat16\n%-34s %9s  %7s  of a copy\n", device.name,
                copy_rate * 1e-6, static_cast<long long>(tokens), "", "ms", "GB/s");
    measure_norm(tokens);
    measure_rotary(tokens);
    measure_swiglu(tokens);
    for (const int64_t vocab : {32000, 32001, 128256}) measure_cross_entropy(vocab);
    measure_embedding(tokens);
    measure_adamw();
    measure_small_ones(tokens);
  });
}

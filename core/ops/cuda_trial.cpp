#include "core/ops/cuda_trial.h"

#include <c10/core/impl/VirtualGuardImpl.h>
#include <fmt/format.h>

#include <array>

#include "core/ops/cuda_call.h"
#include "cuda/adamw.h"
#include "cuda/attention.h"
#include "cuda/cast.h"
#include "cuda/cross_entropy.h"
#include "cuda/dropout.h"
#include "cuda/embedding.h"
#include "cuda/launch_error.h"
#include "cuda/rmsnorm.h"
#include "cuda/rotary.h"
#include "cuda/swiglu.h"
#include "cuda/trial.h"

namespace longlora::ops {
namespace {

constexpr auto kElement = cuda::Element::bfloat16;
constexpr int64_t kRows = 8, kWidth = 64;

at::Tensor zeros(at::IntArrayRef sizes, const at::Device& device, at::ScalarType type = at::kBFloat16) {
  return at::zeros(sizes, at::TensorOptions(type).device(device));
}

void try_adamw(const at::Device& device) {
  const at::Tensor state = zeros({4, kWidth}, device, at::kFloat);
  const auto row = [&](int64_t i) { return state.mutable_data_ptr<float>() + i * kWidth; };
  const cuda::AdamWTensor tensors[] = {
      {.master = row(0), .gradient = row(1), .first = row(2), .second = row(3), .count = kWidth}};
  const std::vector<cuda::AdamWChunk> chunks = cuda::adamw_chunks(tensors);
  const at::Tensor table = upload<cuda::AdamWTensor>(tensors, device), list = upload<cuda::AdamWChunk>(chunks, device),
                   partial = zeros({static_cast<int64_t>(chunks.size())}, device, at::kDouble),
                   norm = zeros({static_cast<int64_t>(sizeof(cuda::GradientNorm))}, device, at::kByte);
  const CudaCall call(state);
  cuda::gradient_norm(
      {uploaded<cuda::AdamWTensor>(table), uploaded<cuda::AdamWChunk>(list), static_cast<int64_t>(chunks.size())},
      /*max_norm=*/1, partial.mutable_data_ptr<double>(), static_cast<cuda::GradientNorm*>(norm.mutable_data_ptr()),
      call.stream);
}

// Tensors of one head of 128, which asks for the most shared memory.
struct Attention {
  static constexpr int64_t kTokens = 128, kHead = 128;
  explicit Attention(const at::Device& device)
      : data(zeros({8, kTokens, 1, kHead}, device)),
        sums(zeros({2, kTokens}, device, at::kFloat)),
        queries(upload<cuda::QueryTile>(query_schedule.tiles, device)),
        keys(upload<cuda::KeyTile>(key_schedule.tiles, device)) {}
  [[nodiscard]] cuda::Heads heads(int64_t i) const { return {data[i].mutable_data_ptr(), kHead, kHead}; }
  [[nodiscard]] cuda::ConstHeads read(int64_t i) const { return {data[i].const_data_ptr(), kHead, kHead}; }
  [[nodiscard]] float* sum(int64_t i) const { return sums.mutable_data_ptr<float>() + i * kTokens; }
  [[nodiscard]] cuda::QueryWork query_work() const {
    return {uploaded<cuda::QueryTile>(queries), static_cast<int64_t>(query_schedule.tiles.size()),
            query_schedule.heads};
  }
  [[nodiscard]] cuda::KeyWork key_work() const {
    return {uploaded<cuda::KeyTile>(keys), static_cast<int64_t>(key_schedule.tiles.size()), key_schedule.heads};
  }

  std::array<int64_t, 2> row{0, kTokens};
  cuda::AttentionShape shape{.tokens = kTokens,
                             .heads = 1,
                             .kv_heads = 1,
                             .plain_heads = 1,
                             .window = 0,
                             .head_size = kHead,
                             .element = kElement,
                             .scale = 0.1f};
  cuda::QuerySchedule query_schedule = cuda::query_schedule(shape, row, row);
  cuda::KeySchedule key_schedule = cuda::key_schedule(shape, row, row);
  at::Tensor data, sums, queries, keys;
};

void try_attention_forward(const at::Device& device) {
  const Attention a(device);
  const CudaCall call(a.data);
  cuda::attention_forward(a.shape, a.query_work(), a.read(0), a.read(1), a.read(2), a.heads(3), a.sum(0), call.stream);
}

void try_attention_backward(const at::Device& device) {
  const Attention a(device);
  const CudaCall call(a.data);
  cuda::attention_backward(a.shape, a.query_work(), a.key_work(), a.read(4), a.read(0), a.read(1), a.read(2), a.read(3),
                           a.sum(0), a.sum(1), /*dq_sum=*/nullptr, a.heads(5), a.heads(6), a.heads(7), call.stream);
}

void try_cast(const at::Device& device) {
  const at::Tensor from = zeros({kWidth}, device), to = zeros({kWidth}, device, at::kFloat);
  const CudaCall call(from);
  cuda::cast(kElement, from.const_data_ptr(), cuda::Element::float32, to.mutable_data_ptr(), kWidth, call.stream);
}

void try_cross_entropy(const at::Device& device) {
  const at::Tensor logits = zeros({kRows, kWidth}, device), targets = zeros({kRows}, device, at::kInt),
                   losses = zeros({kRows}, device, at::kFloat);
  const CudaCall call(logits);
  cuda::cross_entropy({.element = kElement,
                       .rows = kRows,
                       .vocab = kWidth,
                       .logits = logits.mutable_data_ptr(),
                       .row = kWidth,
                       .targets = targets.const_data_ptr<int32_t>(),
                       .losses = losses.mutable_data_ptr<float>(),
                       .gradient = true},
                      call.stream);
}

void try_dropout(const at::Device& device) {
  const at::Tensor x = zeros({kRows, kWidth}, device);
  const CudaCall call(x);
  cuda::dropout({.element = kElement,
                 .rows = kRows,
                 .d = kWidth,
                 .x = x.const_data_ptr(),
                 .x_row = kWidth,
                 .y = x.mutable_data_ptr(),
                 .y_row = kWidth,
                 .p = 0.5,
                 .seed = 1},
                call.stream);
}

void try_embedding(const at::Device& device) {
  const std::array<int32_t, kRows> tokens{};
  const auto [order, runs] = cuda::token_runs(tokens);
  const at::Tensor dx = zeros({kRows, kWidth}, device), dtable = zeros({1, kWidth}, device, at::kFloat),
                   places = upload<int64_t>(order, device), lists = upload<cuda::TokenRun>(runs, device);
  const CudaCall call(dx);
  cuda::embedding_backward({.element = kElement,
                            .d = kWidth,
                            .dx = dx.const_data_ptr(),
                            .dx_row = kWidth,
                            .order = uploaded<int64_t>(places),
                            .runs = uploaded<cuda::TokenRun>(lists),
                            .run_count = static_cast<int64_t>(runs.size()),
                            .dtable = dtable.mutable_data_ptr<float>(),
                            .dtable_row = kWidth},
                           call.stream);
}

void try_rmsnorm(const at::Device& device) {
  const at::Tensor x = zeros({kRows, kWidth}, device), w = zeros({kWidth}, device);
  const CudaCall call(x);
  cuda::rmsnorm_forward({.element = kElement,
                         .rows = kRows,
                         .d = kWidth,
                         .eps = 1e-5f,
                         .x = x.mutable_data_ptr(),
                         .x_row = kWidth,
                         .w = w.const_data_ptr(),
                         .y = x.mutable_data_ptr(),
                         .y_row = kWidth},
                        call.stream);
}

void try_rotary(const at::Device& device) {
  const at::Tensor x = zeros({kRows, kWidth}, device), positions = zeros({kRows}, device, at::kInt),
                   table = zeros({kWidth}, device, at::kFloat);
  const CudaCall call(x);
  cuda::rotate_in_place({.element = kElement,
                         .tokens = kRows,
                         .heads = 1,
                         .head_dim = kWidth,
                         .x = x.mutable_data_ptr(),
                         .token = kWidth,
                         .head = kWidth,
                         .positions = positions.const_data_ptr<int32_t>(),
                         .cos = table.const_data_ptr<float>(),
                         .sin = table.const_data_ptr<float>()},
                        call.stream);
}

void try_swiglu(const at::Device& device) {
  const at::Tensor gate_up = zeros({kRows, 2 * kWidth}, device), m = zeros({kRows, kWidth}, device);
  const CudaCall call(gate_up);
  cuda::swiglu_forward({.element = kElement,
                        .rows = kRows,
                        .n = kWidth,
                        .gate_up = gate_up.const_data_ptr(),
                        .gate_up_row = 2 * kWidth,
                        .m = m.mutable_data_ptr(),
                        .m_row = kWidth},
                       call.stream);
}

constexpr FileTrial kFiles[] = {
    {"adamw.cu", try_adamw},
    {"attention_backward.cu", try_attention_backward},
    {"attention_forward.cu", try_attention_forward},
    {"cast.cu", try_cast},
    {"cross_entropy.cu", try_cross_entropy},
    {"dropout.cu", try_dropout},
    {"embedding.cu", try_embedding},
    {"rmsnorm.cu", try_rmsnorm},
    {"rotary.cu", try_rotary},
    {"swiglu.cu", try_swiglu},
};

}  // namespace

CudaTrial try_cuda_kernels(const at::Device& device) {
  if (const std::string_view why = why_no_cuda_kernels(); !why.empty())
    return {fmt::format("this program was built without CUDA kernels ({})", why), remedy_for_no_kernels(why)};
  const std::vector<Gpu>& gpus = gpu_driver().gpus;
  const size_t number = device.has_index() ? static_cast<size_t>(device.index()) : 0;
  const auto refused = [&](const std::string& why) {
    return CudaTrial{why, remedy_for_kernels(cuda::compiled_with(), gpu_driver().version,
                                             number < gpus.size() ? gpus[number] : Gpu())};
  };
  const at::Tensor mark = zeros({1}, device, at::kInt);
  try {
    const CudaCall call(mark);
    cuda::trial(mark.mutable_data_ptr<int32_t>(), call.stream);
  } catch (const cuda::LaunchError& error) {
    return refused(error.what());
  }
  if (mark.item<int32_t>() != cuda::kTrialMark) return refused("a trial kernel was launched and wrote nothing");
  return {};
}

std::string remedy_for_kernels(int compiled_with, int driver, const Gpu& gpu) {
  constexpr int kOldest = 8;  // compute capability 8.0
  if (gpu.major != 0 && gpu.major < kOldest) {
    return fmt::format("the kernels need compute capability 8.0 (A100) or later, and this GPU has {}.{}", gpu.major,
                       gpu.minor);
  }
  if (driver < compiled_with) {
    const int major = driver / 1000;
    return fmt::format(
        "the kernels were compiled with CUDA {} and the driver is for {}: update the driver, or {}run scripts/build "
        "with "
        "an nvcc {} in the PATH",
        cuda_version(compiled_with), cuda_version(driver),
        major == 12 ? "run scripts/setup --torch cuda12 and then " : "",
        major == compiled_with / 1000 ? "of at most " + cuda_version(driver) : std::to_string(major));
  }
  return "longlora doctor launches one kernel of each file and says which fail";
}

std::string remedy_for_no_kernels(std::string_view why) {
  const auto says = [&](std::string_view words) { return why.find(words) != why.npos; };
  if (says("LONGLORA_KERNELS is off"))
    return "to have them run LONGLORA_CMAKE_ARGS=-DLONGLORA_KERNELS=ON scripts/build";
  if (says("fails on cuda/trial.cu")) {
    return "name a host compiler that this nvcc takes in NVCC_CCBIN (NVCC_CCBIN=g++-13), or another nvcc in CUDACXX, "
           "and run scripts/build";
  }
  if (says("no libcudart_static.a")) {
    return "install the static library of that CUDA's runtime, or name another nvcc in CUDACXX, and run scripts/build";
  }
  return "put an nvcc of LibTorch's CUDA version into the PATH, or name it in CUDACXX, and run scripts/build";
}

std::span<const FileTrial> file_trials() {
  return kFiles;
}

std::string objection_to(const FileTrial& trial, const at::Device& device) {
  try {
    trial.launch(device);
    if (!device.is_cpu()) c10::impl::VirtualGuardImpl(device.type()).synchronizeDevice(device.index());
  } catch (const cuda::LaunchError& error) {
    return error.what();
  } catch (const c10::Error& error) {  // LibTorch's words for a kernel that was launched and failed
    return error.what_without_backtrace();
  }
  return "";
}

}  // namespace longlora::ops

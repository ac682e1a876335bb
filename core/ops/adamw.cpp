#include "core/ops/adamw.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/base/error.h"
#include "core/ops/cuda_call.h"
#include "cuda/adamw.h"

namespace longlora::ops {
namespace {

cuda::AdamWTensor entry_of(const AdamWTensor& t) {
  cuda::AdamWTensor entry{.master = t.master.mutable_data_ptr<float>(),
                          .gradient = t.gradient.mutable_data_ptr<float>(),
                          .first = t.first.mutable_data_ptr<float>(),
                          .second = t.second.mutable_data_ptr<float>(),
                          .count = t.master.numel(),
                          .decays = t.decays,
                          .value = write_or_null(t.value)};
  if (!t.value.defined()) return entry;
  entry.element = *cuda_element(t.value);
  entry.columns = t.value.dim() == 2 ? t.value.size(1) : t.value.numel();
  entry.value_row = t.value.dim() == 2 ? t.value.stride(0) : entry.columns;
  entry.to_value = static_cast<float>(t.to_value);
  return entry;
}

// Whether the kernels take this tensor.
bool served(const AdamWTensor& t) {
  if (cuda_objection(t.master) != nullptr || t.master.scalar_type() != at::kFloat) return false;
  return !t.value.defined() ||
         (cuda_element(t.value) && (t.value.is_contiguous() || (t.value.dim() == 2 && t.value.stride(1) == 1)));
}

void check(const AdamWTensor& t) {
  for (const at::Tensor& x : {t.master, t.gradient, t.first, t.second}) {
    if (!x.is_contiguous() || x.sizes() != t.master.sizes() || x.scalar_type() != t.master.scalar_type() ||
        x.device() != t.master.device()) {
      fail("AdamW: master, gradient and moments must be contiguous, of one size and type, on one device");
    }
  }
  if (t.value.defined() && t.value.sizes() != t.master.sizes()) fail("AdamW: a value has not its master's shape");
}

template <class S>
double squares_of(const S* x, int64_t n) {
  constexpr int kLanes = 8;
  double lane[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int l = 0; l < kLanes; ++l) lane[l] += static_cast<double>(x[i + l]) * static_cast<double>(x[i + l]);
  }
  for (; i < n; ++i) lane[0] += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  return std::accumulate(lane, lane + kLanes, 0.0);
}

// Of CPU tensors: pieces on all threads, their sums added up in one order. LibTorch's norm in float64 would first copy each
// tensor as float64.
double squares_of(const std::vector<AdamWTensor>& tensors) {
  constexpr int64_t kPiece = 1 << 15;
  struct Piece {
    const at::Tensor* tensor;
    int64_t begin;
  };
  std::vector<Piece> pieces;
  for (const AdamWTensor& t : tensors) {
    for (int64_t begin = 0; begin < t.gradient.numel(); begin += kPiece) pieces.push_back({&t.gradient, begin});
  }
  std::vector<double> sums(pieces.size());
  at::parallel_for(0, static_cast<int64_t>(pieces.size()), 1, [&](int64_t from, int64_t to) {
    for (int64_t i = from; i < to; ++i) {
      const auto& [tensor, begin] = pieces[static_cast<size_t>(i)];
      const int64_t count = std::min(kPiece, tensor->numel() - begin);
      sums[static_cast<size_t>(i)] = tensor->scalar_type() == at::kDouble
                                         ? squares_of(tensor->const_data_ptr<double>() + begin, count)
                                         : squares_of(tensor->const_data_ptr<float>() + begin, count);
    }
  });
  return std::accumulate(sums.begin(), sums.end(), 0.0);
}

}  // namespace

AdamW::AdamW(std::vector<AdamWTensor> tensors) : tensors_(std::move(tensors)) {
  for (const AdamWTensor& t : tensors_) check(t);
  if (!tensors_.empty() && std::all_of(tensors_.begin(), tensors_.end(), served)) {
    const at::Device device = tensors_.front().master.device();
    std::vector<cuda::AdamWTensor> entries;
    for (const AdamWTensor& t : tensors_) entries.push_back(entry_of(t));
    const std::vector<cuda::AdamWChunk> chunks = cuda::adamw_chunks(entries);
    chunk_count_ = static_cast<int64_t>(chunks.size());
    table_ = upload<cuda::AdamWTensor>(entries, device);
    chunks_ = upload<cuda::AdamWChunk>(chunks, device);
    partial_ = at::empty({chunk_count_}, at::TensorOptions(at::kDouble).device(device));
    return;
  }
  for (const AdamWTensor& t : tensors_) {
    Lists& lists = lists_[t.decays ? 0 : 1];
    lists.masters.push_back(t.master);
    lists.gradients.push_back(t.gradient);
    lists.first.push_back(t.first);
    lists.second.push_back(t.second);
    lists.counts.push_back(at::zeros({}, t.master.options().dtype(at::kFloat)));
  }
}

double AdamW::gradient_norm() const {
  if (table_.defined()) {
    const CudaCall call(table_);
    const at::Tensor norm = at::empty({static_cast<int64_t>(sizeof(cuda::GradientNorm))}, table_.options());
    cuda::gradient_norm({uploaded<cuda::AdamWTensor>(table_), uploaded<cuda::AdamWChunk>(chunks_), chunk_count_},
                        /*max_norm=*/0, partial_.mutable_data_ptr<double>(),
                        static_cast<cuda::GradientNorm*>(norm.mutable_data_ptr()), call.stream);
    const at::Tensor here = norm.cpu();
    return uploaded<cuda::GradientNorm>(here)->norm;
  }
  const bool here = std::all_of(tensors_.begin(), tensors_.end(), [](const auto& t) {
    return t.gradient.is_cpu() && (t.gradient.scalar_type() == at::kFloat || t.gradient.scalar_type() == at::kDouble);
  });
  if (here) return std::sqrt(squares_of(tensors_));
  double squares = 0;
  for (const AdamWTensor& t : tensors_) {
    const double norm = at::linalg_vector_norm(t.gradient, 2, {}, false, at::kDouble).item<double>();
    squares += norm * norm;
  }
  return std::sqrt(squares);
}

void AdamW::step(const AdamWStep& s, double norm) {
  if (!std::isfinite(norm)) return;
  const double clip = s.max_norm > 0 && norm > s.max_norm ? s.max_norm / (norm + 1e-6) : 1;
  if (table_.defined()) {
    const CudaCall call(table_);
    const cuda::GradientNorm clipped[] = {{norm, static_cast<float>(clip)}};
    const at::Tensor there = upload<cuda::GradientNorm>(clipped, table_.device());
    cuda::adamw({uploaded<cuda::AdamWTensor>(table_), uploaded<cuda::AdamWChunk>(chunks_), chunk_count_},
                {s.lr, s.beta1, s.beta2, s.eps, s.weight_decay, s.step}, uploaded<cuda::GradientNorm>(there),
                call.stream);
    return;
  }
  for (const bool decays : {true, false}) {
    Lists& lists = lists_[decays ? 0 : 1];
    if (lists.masters.empty()) continue;
    if (clip != 1) at::_foreach_mul_(lists.gradients, clip);
    for (at::Tensor& count : lists.counts) count.fill_(static_cast<double>(s.step));
    at::_fused_adamw_(lists.masters, lists.gradients, lists.first, lists.second, {}, lists.counts, s.lr, s.beta1,
                      s.beta2, decays ? s.weight_decay : 0, s.eps, /*amsgrad=*/false, /*maximize=*/false);
    at::_foreach_zero_(lists.gradients);
  }
  for (AdamWTensor& t : tensors_) {
    if (t.value.defined()) t.value.copy_(t.to_value == 1 ? t.master : t.master * t.to_value);
  }
}

}  // namespace longlora::ops

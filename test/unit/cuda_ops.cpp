// core/ops over the kernels of cuda/, run on the host in longlora_ops_tests and on a GPU where there is one: each operation
// against the same written with plain tensor operations and autograd, in float64 for the truth and in its own type for what
// may be lost.
#include "core/ops/adamw.h"

#include <catch2/catch.hpp>

#include <array>
#include <filesystem>
#include <random>
#include <set>

#include "core/model/device.h"
#include "core/ops/attention.h"
#include "core/ops/cross_entropy.h"
#include "core/ops/cuda_call.h"
#include "core/ops/cuda_trial.h"
#include "core/ops/dropout.h"
#include "core/ops/embedding.h"
#include "core/ops/rmsnorm.h"
#include "core/ops/rotary.h"
#include "core/ops/swiglu.h"

#ifndef LONGLORA_KERNELS_ON_HOST
#define LONGLORA_KERNELS_ON_HOST 0
#endif

namespace longlora::ops {
namespace {

constexpr at::ScalarType kTypes[] = {at::kFloat, at::kBFloat16, at::kHalf};

const at::Device& device() {
  static const at::Device here = LONGLORA_KERNELS_ON_HOST ? at::Device(at::kCPU) : model::open_device("auto");
  return here;
}

// False, with a word about it, where this program has no kernels or no GPU.
bool kernels_here() {
  const char* objection = cuda_objection(at::empty({1}, at::TensorOptions(device())));
  if (objection != nullptr) WARN("skipped: " << objection);
  return objection == nullptr;
}

// A matrix of type on the device whose rows are `room` elements apart from each other.
at::Tensor strided(const at::Tensor& wide, at::ScalarType type, int64_t room) {
  const at::Tensor all = at::full({wide.size(0), wide.size(1) + room}, 7, at::TensorOptions(type).device(device()));
  const at::Tensor x = all.narrow(1, 0, wide.size(1));
  x.copy_(wide);
  return x;
}

at::Tensor leaf(const at::Tensor& x, at::ScalarType type) {
  return x.cpu().to(type).clone().set_requires_grad(true);
}

double distance(const at::Tensor& a, const at::Tensor& b) {
  return (a.cpu().to(at::kDouble) - b.to(at::kDouble)).norm().item<double>();
}

// The error of ours is at most `factor` times that of the plain operations, the rounding of a result,
// and 1e-6 an element where a gradient cancels to zero.
void check(const char* what, double factor, const at::Tensor& ours, const at::Tensor& plain, const at::Tensor& exact) {
  const at::ScalarType type = ours.scalar_type();
  const double epsilon = type == at::kFloat ? 0x1p-23 : type == at::kBFloat16 ? 0x1p-8 : 0x1p-11;
  INFO(what << " of type " << type);
  REQUIRE(ours.sizes() == exact.sizes());
  CHECK(distance(ours, exact) <= factor * distance(plain, exact) + epsilon * exact.norm().item<double>() +
                                     1e-6 * std::sqrt(static_cast<double>(exact.numel())));
}

struct Shape {
  int64_t rows, columns, room;
};
const Shape kShapes[] = {{1, 2, 0}, {3, 64, 0}, {5, 100, 3}, {7, 257, 0}, {40, 96, 8}, {2, 5000, 8}};

// As Llama writes it: the normalised value is rounded before the weight.
at::Tensor plain_rmsnorm(const at::Tensor& x, const at::Tensor& w, double eps) {
  const auto wide = x.to(x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
  return (wide * (wide.square().mean(-1, true) + eps).rsqrt()).to(x.scalar_type()) * w;
}

}  // namespace

TEST_CASE("RMSNorm by the CUDA kernels, forward and backward", "[kernels][gpu]") {
  if (!kernels_here()) return;
  const uint64_t seed = std::random_device()();
  INFO("seed " << seed);
  at::manual_seed(seed);
  for (const at::ScalarType type : kTypes) {
    for (const auto& [rows, d, room] : kShapes) {
      INFO(rows << " rows of " << d << ", room " << room);
      const at::Tensor x = strided(at::randn({rows, d}), type, room), dy = strided(at::randn({rows, d}), type, room);
      const at::Tensor residual = strided(at::randn({rows, d}), type, room);
      const at::Tensor w = at::randn({d}).to(device(), type);
      const double eps = 0.1;
      const at::Tensor before = at::randn({d}).to(device());
      const auto by_autograd = [&](at::ScalarType t) {
        const at::Tensor xs = leaf(x, t), ws = leaf(w, t);
        const at::Tensor y = plain_rmsnorm(xs, ws, eps);
        y.backward(dy.cpu().to(t));
        return std::vector<at::Tensor>{y.detach(), xs.grad() + residual.cpu().to(t), ws.grad() + before.cpu().to(t)};
      };
      const auto exact = by_autograd(at::kDouble), plain = by_autograd(type);
      const RmsNormed ours = rmsnorm_forward(x, w, eps);
      const at::Tensor dw = before.clone();
      check("y", 2, ours.y, plain[0], exact[0]);
      check("dx", 3, rmsnorm_backward(dy, x, w, ours.rstd, residual, dw), plain[1], exact[1]);
      check("dw", 3, dw, plain[2], exact[2]);
      const at::Tensor alone = rmsnorm_backward(dy, x, w, ours.rstd, {}, {}), none = residual.cpu();
      check("dx alone", 3, alone, plain[1] - none, exact[1] - none.to(at::kDouble));
    }
  }
}

TEST_CASE("rotary embedding by the CUDA kernels, there and back", "[kernels][gpu]") {
  if (!kernels_here()) return;
  at::manual_seed(2);
  const int64_t places = 60;
  for (const at::ScalarType type : kTypes) {
    for (const auto& [tokens, heads, head_dim] :
         std::vector<std::array<int64_t, 3>>{{1, 1, 2}, {7, 3, 64}, {9, 5, 6}}) {
      INFO(type << ", " << tokens << " tokens, " << heads << " heads of " << head_dim);
      const int64_t half = head_dim / 2;
      const at::Tensor wide = at::randn({tokens, (heads + 2) * head_dim});  // two heads stay as they are
      const at::Tensor positions = at::randint(places, {tokens}, at::kInt);
      const at::Tensor angle = at::randn({places, half}, at::kDouble) * 10;
      const RotaryTable table{angle.cos().to(device(), at::kFloat), angle.sin().to(device(), at::kFloat)};
      for (const bool inverse : {false, true}) {
        const at::Tensor x = wide.to(device(), type).clone();
        const auto by_operations = [&](at::ScalarType t) {
          at::Tensor y = wide.to(type).to(t);
          const at::Tensor turned = y.narrow(1, 0, heads * head_dim).view({tokens, heads, 2, half});
          const at::Tensor cos = table.cos.cpu().to(t).index_select(0, positions).unsqueeze(1);
          const at::Tensor sin = table.sin.cpu().to(t).index_select(0, positions).unsqueeze(1) * (inverse ? -1 : 1);
          const at::Tensor lo = turned.select(2, 0).clone(), hi = turned.select(2, 1).clone();
          turned.select(2, 0).copy_(lo * cos - hi * sin);
          turned.select(2, 1).copy_(hi * cos + lo * sin);
          return y;
        };
        rotate_in_place(x, heads, head_dim, positions.to(device()), table, inverse);
        check("turned", 2, x, by_operations(type), by_operations(at::kDouble));
        const int64_t from = heads * head_dim;
        CHECK(x.narrow(1, from, 2 * head_dim).cpu().equal(wide.to(type).narrow(1, from, 2 * head_dim)));
      }
    }
  }
}

TEST_CASE("SwiGLU by the CUDA kernels, forward and backward in place", "[kernels][gpu]") {
  if (!kernels_here()) return;
  const uint64_t seed = std::random_device()();
  INFO("seed " << seed);
  at::manual_seed(seed);
  for (const at::ScalarType type : kTypes) {
    for (const auto& [rows, n, room] : kShapes) {
      INFO(rows << " rows of " << n << ", room " << room);
      const at::Tensor gate_up = strided(at::randn({rows, 2 * n}) * 3, type, room);
      const at::Tensor dm = strided(at::randn({rows, n}), type, room);
      const auto by_autograd = [&](at::ScalarType t) {
        const at::Tensor x = leaf(gate_up, t);
        const at::Tensor m = at::silu(x.narrow(1, 0, n)) * x.narrow(1, n, n);
        m.backward(dm.cpu().to(t));
        return std::array<at::Tensor, 2>{m.detach(), x.grad()};
      };
      const auto exact = by_autograd(at::kDouble), plain = by_autograd(type);
      const at::Tensor m = swiglu_forward(gate_up), again = strided(at::zeros({rows, n}), type, room);
      check("m", 2, m, plain[0], exact[0]);
      const at::Tensor without = gate_up.clone();
      swiglu_backward_in_place(gate_up, dm, again);
      check("gradient", 3, gate_up, plain[1], exact[1]);
      check("m again", 2, again, plain[0], exact[0]);
      swiglu_backward_in_place(without, dm, {});
      CHECK(without.equal(gate_up));
    }
  }
}

TEST_CASE("the head's loss by the CUDA kernels, in chunks", "[kernels][gpu]") {
  if (!kernels_here()) return;
  const uint64_t seed = std::random_device()();
  INFO("seed " << seed);
  at::manual_seed(seed);
  const double scale = 1.0 / 7;
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    for (const auto& [tokens, d, vocab] :
         std::vector<std::array<int64_t, 3>>{{1, 8, 3}, {13, 24, 101}, {20, 32, 640}}) {
      INFO(tokens << " tokens, hidden " << d << ", vocabulary " << vocab);
      const at::Tensor hidden = at::randn({tokens, d}).to(device(), type),
                       head = at::randn({vocab, d}).to(device(), type);
      const at::Tensor targets = at::randint(vocab, {tokens}, at::kInt);
      if (tokens > 5) targets.slice(0, 2, 5).fill_(-100);
      const auto by_autograd = [&](at::ScalarType t) {
        const at::Tensor h = leaf(hidden, t), w = leaf(head, t);
        const at::Tensor log_p = at::linear(h, w).log_softmax(-1, t == at::kDouble ? at::kDouble : at::kFloat);
        const at::Tensor at_target = log_p.gather(1, targets.clamp_min(0).to(at::kLong).unsqueeze(1)).squeeze(1);
        const at::Tensor losses = -at_target * targets.ge(0);
        (losses.sum() * scale).backward();
        return std::vector<at::Tensor>{losses.detach(), h.grad(), w.grad()};
      };
      const auto exact = by_autograd(at::kDouble), plain = by_autograd(type);
      for (const int64_t chunk : {int64_t{0}, int64_t{6}}) {
        INFO("chunk " << chunk);
        const at::Tensor dhead = at::zeros({vocab, d}, hidden.options().dtype(at::kFloat));
        const HeadLoss ours = head_loss(hidden, head, targets, ProductBackend::native, true, scale, dhead, chunk);
        check("losses", 2, ours.losses, plain[0], exact[0]);
        check("dhidden", 3, ours.dhidden, plain[1], exact[1]);
        check("dhead", 3, dhead.to(type), plain[2], exact[2]);
        const HeadLoss forward = head_loss(hidden, head, targets, ProductBackend::native, false, scale, {}, chunk);
        CHECK(forward.losses.equal(ours.losses));
        CHECK_FALSE(forward.dhidden.defined());
      }
    }
  }
}

TEST_CASE("the embedding's gradient by the CUDA kernels has the bits of a loop over the tokens", "[kernels][gpu]") {
  if (!kernels_here()) return;
  at::manual_seed(3);
  for (const at::ScalarType type : kTypes) {
    for (const auto& [rows, d, room] : kShapes) {
      const at::Tensor dx = strided(at::randn({rows, d}), type, room), tokens = at::randint(5, {rows}, at::kInt);
      const at::Tensor before = at::randn({9, d});
      const at::Tensor expected = before.clone(), ours = before.to(device()).clone();
      for (int64_t t = 0; t < rows; ++t) {
        expected.select(0, tokens[t].item<int>()).add_(dx.cpu().select(0, t).to(at::kFloat));
      }
      embedding_backward(dx, tokens, ours);
      INFO(type << ", " << rows << " rows of " << d);
      CHECK(ours.cpu().equal(expected));
    }
  }
}

TEST_CASE("dropout by the CUDA kernels keeps what the CPU keeps", "[kernels][gpu]") {
  if (!kernels_here()) return;
  at::manual_seed(4);
  const double p = 0.3;
  const auto scale = static_cast<float>(1 / (1 - p));
  for (const at::ScalarType type : kTypes) {
    for (const auto& [rows, d, room] : kShapes) {
      const at::Tensor x = strided(at::randn({rows, d}), type, room);
      const Dropout stream{.seed = 77, .first_token = 1000};
      const at::Tensor kept =
          dropout(at::ones({rows, d}, at::kDouble), p, stream).ne(0);  // float64 goes to the CPU's loop
      const at::Tensor expected = (x.cpu().to(at::kFloat) * scale * kept).to(type);
      CHECK(dropout(x, p, stream).cpu().equal(expected));
    }
  }
}

TEST_CASE("AdamW by the CUDA kernels has the bits of LibTorch's on the CPU", "[kernels][gpu][adamw]") {
  if (!kernels_here()) return;
  at::manual_seed(5);
  struct Given {
    std::vector<int64_t> sizes;
    bool decays;
    at::ScalarType type;  // of the value
    int64_t room;
    double to_value;
  };
  // Multiples of 16 elements: LibTorch rounds what is left over otherwise.
  const std::vector<Given> all = {{{64}, false, at::kBFloat16, 0, 1},
                                  {{32, 16}, true, at::kBFloat16, 0, 1},
                                  {{24, 8}, true, at::kBFloat16, 5, 2.5},
                                  {{200, 160}, true, at::kFloat, 0, 1},
                                  {{16, 6}, true, at::kHalf, 2, 0.3}};
  std::vector<AdamWTensor> ours;
  std::vector<at::Tensor> masters, gradients, first, second, counts;
  for (const Given& g : all) {
    const auto put = [&](std::vector<at::Tensor>& list, const at::Tensor& x) {
      list.push_back(x.clone());
      return x.to(device()).clone();
    };
    const at::Tensor master = put(masters, at::randn(g.sizes)), gradient = put(gradients, at::randn(g.sizes));
    const at::Tensor m = put(first, at::randn(g.sizes)), v = put(second, at::rand(g.sizes));
    const at::Tensor value = g.sizes.size() == 2 ? strided(at::zeros(g.sizes), g.type, g.room)
                                                 : at::zeros(g.sizes, at::TensorOptions(g.type).device(device()));
    ours.push_back({master, gradient, m, v, g.decays, value, g.to_value});
    counts.push_back(at::zeros({}));
  }
  ours[1].value = at::Tensor();  // somebody else's to refresh
  AdamW adamw(ours);
  AdamWStep step{.lr = 1e-2, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.1, .max_norm = 3, .step = 0};
  for (step.step = 1; step.step <= 3; ++step.step) {
    double squares = 0;
    for (const at::Tensor& g : gradients) squares += g.to(at::kDouble).square().sum().item<double>();
    const double norm = adamw.gradient_norm();
    CHECK(norm == Approx(std::sqrt(squares)).epsilon(1e-12));
    adamw.step(step, norm);
    for (size_t i = 0; i < all.size(); ++i) {
      gradients[i].mul_(step.max_norm / (norm + 1e-6));
      counts[i].fill_(static_cast<double>(step.step));
      at::_fused_adamw_({masters[i]}, {gradients[i]}, {first[i]}, {second[i]}, {}, {counts[i]}, step.lr, step.beta1,
                        step.beta2, all[i].decays ? step.weight_decay : 0, step.eps, false, false);
      INFO("tensor " << i << ", step " << step.step);
      CHECK(ours[i].master.cpu().equal(masters[i]));
      CHECK(ours[i].first.cpu().equal(first[i]));
      CHECK(ours[i].second.cpu().equal(second[i]));
      CHECK(ours[i].gradient.count_nonzero().item<int64_t>() == 0);
      if (i != 1) CHECK(ours[i].value.cpu().equal((masters[i] * all[i].to_value).to(all[i].type)));
      gradients[i].normal_();
      ours[i].gradient.copy_(gradients[i]);
    }
  }
  ours[0].gradient.fill_(INFINITY);
  const at::Tensor before = ours[3].master.clone();
  const double norm = adamw.gradient_norm();
  CHECK(std::isinf(norm));
  adamw.step(step, norm);
  CHECK(ours[3].master.equal(before));
  CHECK(ours[0].gradient.isinf().all().item<bool>());
}

TEST_CASE("the CUDA kernels' work lists are made once per plan, and again for a plan that was changed",
          "[kernels][gpu]") {
  if (!kernels_here()) return;
  at::manual_seed(6);
  const at::Tensor x = at::randn({100, 4, 64}).to(device(), at::kBFloat16);
  const std::vector<int64_t> documents = {0, 30, 100};
  const auto attend = [&](const GroupPlan& plan) {
    return attention_forward(x, x, x, plan, AttentionBackend::cuda).out;
  };
  GroupPlan plan = GroupPlan::s2(documents, 16, 4, 4);
  const GroupPlan full = GroupPlan::full(documents, 4, 4);
  const at::Tensor first = attend(plan);
  const GroupPlan copy = plan;
  CHECK(attend(copy).equal(first));
  CHECK(copy.tiles == plan.tiles);
  plan.plain = full.plain;
  plan.shifted = full.shifted;
  const at::Tensor changed = attend(plan);
  CHECK(plan.tiles != copy.tiles);
  CHECK(changed.equal(attend(full)));
  CHECK_FALSE(changed.equal(first));
}

TEST_CASE("a trial of the kernels writes its mark, and one of each file is launched", "[kernels]") {
  if (!kernels_here()) return;
  CHECK(try_cuda_kernels(device()).objection.empty());
  for (const FileTrial& trial : file_trials()) {
    INFO(trial.file);
    CHECK(objection_to(trial, device()) == "");
  }
}

TEST_CASE("every file of kernels has a trial", "[kernels]") {
  std::set<std::string> files, tried;
  for (const auto& entry : std::filesystem::directory_iterator(LONGLORA_SOURCE_DIR "/cuda")) {
    if (entry.path().extension() == ".cu" && entry.path().filename() != "trial.cu")
      files.insert(entry.path().filename().string());
  }
  for (const FileTrial& trial : file_trials()) tried.insert(trial.file);
  CHECK(files == tried);
}

}  // namespace longlora::ops

// The randomized SVD against LibTorch's full one in float64.
#include <ATen/ATen.h>

#include <catch2/catch.hpp>
#include <cmath>

#include "core/adapt/randomized_svd.h"

using namespace longlora;
using adapt::SvdGoal;
using adapt::TruncatedSvd;

namespace {

const auto kNothing = [] {};

// [m, n] with these singular values in random directions.
at::Tensor with_values(int64_t m, int64_t n, const at::Tensor& values) {
  const auto basis = [&](int64_t rows) {
    return std::get<0>(at::linalg_qr(at::randn({rows, values.size(0)}, at::kDouble), "reduced"));
  };
  const at::Tensor left = basis(m), right = basis(n);
  return at::mm(left * values, right.t()).to(at::kFloat);
}

at::Tensor counted(int64_t n) {
  return at::arange(1, n + 1, at::kDouble);
}

at::Tensor squares(const at::Tensor& matrix) {
  return std::get<1>(at::linalg_svd(matrix.to(at::kDouble), false)).square();
}

double residual(const at::Tensor& matrix, const TruncatedSvd& svd) {
  const at::Tensor kept = at::mm(svd.u.to(at::kDouble) * svd.s, svd.v.to(at::kDouble).t());
  return (matrix.to(at::kDouble) - kept).norm().item<double>();
}

double best(const at::Tensor& squared, int64_t rank) {
  return std::sqrt(squared.narrow(0, rank, squared.size(0) - rank).sum().item<double>());
}

// The fewest values that lose at most this share.
int64_t least(const at::Tensor& squared, double loss) {
  const double total = squared.sum().item<double>();
  int64_t rank = 1;
  while (best(squared, rank) * best(squared, rank) > loss * total) ++rank;
  return rank;
}

bool orthonormal(const at::Tensor& q) {
  const at::Tensor wide = q.to(at::kDouble);
  return (at::mm(wide.t(), wide) - at::eye(q.size(1), at::kDouble)).abs().max().item<double>() < 1e-5;
}

struct Spectrum {
  const char* name;
  std::function<at::Tensor(int64_t m, int64_t n)> make;
};

// From flat to steep; 1 / i^2 ends where float32 does.
const std::vector<Spectrum> kSpectra = {
    {"random numbers",
     [](int64_t m, int64_t n) {
       return at::randn({m, n});
     }},
    {"1 / i^0.25", [](int64_t m, int64_t n) { return with_values(m, n, counted(std::min(m, n)).pow(-0.25)); }},
    {"1 / i^0.5", [](int64_t m, int64_t n) { return with_values(m, n, counted(std::min(m, n)).pow(-0.5)); }},
    {"1 / i", [](int64_t m, int64_t n) { return with_values(m, n, counted(std::min(m, n)).pow(-1)); }},
    {"1 / i^2", [](int64_t m, int64_t n) { return with_values(m, n, counted(std::min(m, n)).pow(-2)); }},
    {"0.97^i",
     [](int64_t m, int64_t n) { return with_values(m, n, at::pow(at::Scalar(0.97), counted(std::min(m, n)))); }},
    {"rank 12 + noise",
     [](int64_t m, int64_t n) {
       return at::mm(at::randn({m, 12}), at::randn({12, n})) + at::randn({m, n});
     }},
};

}  // namespace

TEST_CASE("the residual of a sketch is within 1 % of the best of its rank", "[extract][svd]") {
  const uint64_t seed = 11;
  at::manual_seed(seed);
  for (const auto& [m, n] : {std::pair<int64_t, int64_t>{320, 448}, {448, 320}}) {
    for (const Spectrum& spectrum : kSpectra) {
      const at::Tensor matrix = spectrum.make(m, n), squared = squares(matrix);
      for (const int64_t rank : {1, 16, 48}) {
        INFO(m << " x " << n << ", " << spectrum.name << ", rank " << rank << ", seed " << seed);
        const TruncatedSvd svd = adapt::truncated_svd(matrix, {.max_rank = rank}, seed, kNothing);
        CHECK_FALSE(svd.exact);
        CHECK(svd.s.size(0) == rank);
        CHECK(residual(matrix, svd) <= 1.01 * best(squared, rank));
        CHECK(orthonormal(svd.u));
        CHECK(orthonormal(svd.v));
        CHECK(std::is_sorted(svd.s.const_data_ptr<double>(), svd.s.const_data_ptr<double>() + rank, std::greater<>()));
      }
    }
  }
}

TEST_CASE("a rank beyond half of all values takes the exact way", "[extract][svd]") {
  const uint64_t seed = 12;
  at::manual_seed(seed);
  for (const auto& [m, n] : {std::pair<int64_t, int64_t>{96, 150}, {150, 96}}) {
    for (const Spectrum& spectrum : kSpectra) {
      INFO(m << " x " << n << ", " << spectrum.name << ", seed " << seed);
      const at::Tensor matrix = spectrum.make(m, n), squared = squares(matrix);
      const TruncatedSvd half = adapt::truncated_svd(matrix, {.max_rank = 64}, seed, kNothing);
      CHECK(half.exact);
      const double rounding = 1e-6 * std::sqrt(squared.sum().item<double>());
      CHECK(residual(matrix, half) <= 1.0001 * best(squared, 64) + rounding);
      const TruncatedSvd all = adapt::truncated_svd(matrix, {.max_rank = 1000}, seed, kNothing);
      CHECK(all.s.size(0) == 96);
      CHECK(residual(matrix, all) <= rounding);
    }
  }
}

TEST_CASE("a share to keep is met with the least rank", "[extract][svd]") {
  const uint64_t seed = 13;
  at::manual_seed(seed);
  int64_t sketched = 0, exact = 0, grown = 0;
  for (const Spectrum& spectrum : kSpectra) {
    const at::Tensor matrix = spectrum.make(400, 512), squared = squares(matrix);
    const double norm = std::sqrt(squared.sum().item<double>());
    for (const double loss : {0.5, 0.1, 0.05, 1e-2, 1e-4, 1e-7}) {
      const TruncatedSvd svd = adapt::truncated_svd(matrix, {.max_rank = 400, .loss = loss}, seed, kNothing);
      const int64_t needed = least(squared, loss), rank = svd.s.size(0);
      INFO(spectrum.name << ", loss " << loss << ", needed " << needed << ", got " << rank << ", exact " << svd.exact
                         << ", seed " << seed);
      CHECK(residual(matrix, svd) <= (1 + 1e-3) * std::sqrt(loss) * norm);
      CHECK(rank >= needed - (loss < 1e-5));  // there float32 counts
      CHECK(rank <= std::max(needed + 1, needed + needed / 50));
      (svd.exact ? exact : sketched) += 1;
      grown += !svd.exact && rank > 64;
    }
  }
  CHECK(sketched >= 15);
  CHECK(exact >= 8);
  CHECK(grown >= 2);  // more than one block
}

TEST_CASE("no more values than the limit, also where the share asks for more", "[extract][svd]") {
  at::manual_seed(14);
  const at::Tensor matrix = at::randn({400, 512}), squared = squares(matrix);
  for (const int64_t limit : {1, 20, 100, 300}) {
    const TruncatedSvd svd = adapt::truncated_svd(matrix, {.max_rank = limit, .loss = 0.01}, 1, kNothing);
    CHECK(svd.s.size(0) == limit);
    CHECK(residual(matrix, svd) <= 1.01 * best(squared, limit));
  }
}

TEST_CASE("a matrix of lower rank than asked for is given back whole", "[extract][svd]") {
  at::manual_seed(15);
  const at::Tensor matrix = at::mm(at::randn({300, 5}), at::randn({5, 350}));
  const double norm = matrix.to(at::kDouble).norm().item<double>();
  for (const SvdGoal goal :
       {SvdGoal{.max_rank = 20}, SvdGoal{.max_rank = 200}, SvdGoal{.max_rank = 300, .loss = 1e-5}}) {
    const TruncatedSvd svd = adapt::truncated_svd(matrix, goal, 1, kNothing);
    CHECK(at::isfinite(svd.u).all().item<bool>());
    CHECK(at::isfinite(svd.v).all().item<bool>());
    CHECK(residual(matrix, svd) <= 1e-6 * norm);
    CHECK(svd.s.size(0) == (goal.loss > 0 ? 5 : goal.max_rank));
  }
  const TruncatedSvd none = adapt::truncated_svd(at::zeros({200, 300}), {.max_rank = 3}, 1, kNothing);
  CHECK(at::isfinite(none.u).all().item<bool>());
  CHECK(at::isfinite(none.v).all().item<bool>());
}

TEST_CASE("the same seed gives the same factors, another one others", "[extract][svd]") {
  at::manual_seed(16);
  const at::Tensor matrix = at::randn({300, 260});
  const auto u = [&](uint64_t seed) {
    at::manual_seed(static_cast<uint64_t>(at::randint(1000, {1}).item<int64_t>()));  // nothing else counts
    return adapt::truncated_svd(matrix, {.max_rank = 8}, seed, kNothing).u;
  };
  CHECK(u(1).equal(u(1)));
  CHECK_FALSE(u(1).equal(u(2)));
}

TEST_CASE("the squared norm is added up in float64", "[extract][svd]") {
  const at::Tensor matrix = at::full({37, 1003}, 3e-3F);
  matrix[0][0] = 4096;
  CHECK(adapt::squared_norm(matrix) == Approx(matrix.to(at::kDouble).square().sum().item<double>()).epsilon(1e-14));
  CHECK(adapt::squared_norm(matrix.t()) == Approx(adapt::squared_norm(matrix)).epsilon(1e-14));
}

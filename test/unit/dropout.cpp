// Dropout keeps the share it should, scales what it keeps, and both ways of computing it agree.
#include <catch2/catch.hpp>

#include "core/ops/dropout.h"

namespace longlora {

TEST_CASE("dropout keeps a share of 1 - p, scaled by 1 / (1 - p), by row and by column", "[ops]") {
  const int64_t rows = 512, columns = 384;
  const at::Tensor x = at::ones({rows, columns}, at::kDouble);
  for (const double p : {0.05, 0.5, 0.9}) {
    INFO("p " << p);
    const at::Tensor y = ops::dropout(x, p, {.seed = 11});
    const at::Tensor kept = y.ne(0).to(at::kDouble);
    CHECK((y - kept / (1 - p)).abs().max().item<double>() < 1e-12);
    // Five standard deviations of a binomial share.
    const auto far = [&](const at::Tensor& share, int64_t n) {
      return (share - (1 - p)).abs().max().item<double>() > 5 * std::sqrt(p * (1 - p) / static_cast<double>(n));
    };
    CHECK_FALSE(far(kept.mean(), rows * columns));
    CHECK_FALSE(far(kept.mean(0), rows));
    CHECK_FALSE(far(kept.mean(1), columns));
    // Neighbours in a row and in a column are kept independently of each other.
    CHECK_FALSE(far((kept.narrow(0, 1, rows - 1) * kept.narrow(0, 0, rows - 1)).mean().sqrt(), rows * columns / 4));
    CHECK_FALSE(
        far((kept.narrow(1, 1, columns - 1) * kept.narrow(1, 0, columns - 1)).mean().sqrt(), rows * columns / 4));
  }
}

TEST_CASE("dropout depends on the seed and on the token's place in the step alone", "[ops]") {
  const at::Tensor x = at::randn({40, 30}, at::kDouble);
  const at::Tensor whole = ops::dropout(x, 0.3, {.seed = 5, .first_token = 100});
  CHECK(ops::dropout(x.narrow(0, 15, 25).contiguous(), 0.3, {.seed = 5, .first_token = 115})
            .equal(whole.narrow(0, 15, 25)));
  const at::Tensor pieces = at::cat({x.narrow(0, 5, 10), x.narrow(0, 32, 8)});
  CHECK(ops::dropout(pieces, 0.3, {.seed = 5, .first_token = 100, .pieces = {{5, 15}, {32, 40}}})
            .equal(at::cat({whole.narrow(0, 5, 10), whole.narrow(0, 32, 8)})));
  CHECK_FALSE(ops::dropout(x, 0.3, {.seed = 6, .first_token = 100}).equal(whole));
  CHECK(ops::dropout(x, 0.3, {.seed = 0}).equal(x));
  CHECK(ops::dropout(x, 0, {.seed = 5}).equal(x));
}

// The GPU's kernel draws the same: test/kernels/dropout_test.cpp.
TEST_CASE("dropout draws the mask that it always drew", "[ops]") {
  const at::Tensor y = ops::dropout(at::ones({3, 40}), 0.5, {.seed = 42, .first_token = 1000});
  std::string mask;
  for (int64_t i = 0; i < y.numel(); ++i) mask += y.view(-1)[i].item<float>() == 0 ? '.' : 'x';
  CHECK(mask ==
        "xx..xx..xxx.x.xxxx.x.xxx..xxx.x..xx.xx.."
        "..x..x.xx..x...xx.x.x...x.x.xxx..x.....x"
        "x..x..x..x.....xx.....xxxxx.xxx....x...x");
}

}  // namespace longlora

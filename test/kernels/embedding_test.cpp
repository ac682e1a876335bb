// The embedding's gradient on the host: the same bits as adding the rows one after the other.
#include "cuda/embedding.h"

#include "test/kernels/elements.h"

using namespace longlora::cuda;
using namespace longlora::cuda::test;

namespace {

template <class T>
void check(const std::vector<int32_t>& tokens, int64_t vocab, int64_t d, int64_t room, int64_t shift, uint64_t seed) {
  INFO(tokens.size() << " tokens, d " << d << ", room " << room << ", shift " << shift << ", seed " << seed);
  const auto count = static_cast<int64_t>(tokens.size());
  const Matrix dx = random_matrix<T>(count, d, seed), before = random_matrix<float>(vocab, d, seed + 1);
  Matrix expected = before;
  for (int64_t t = 0; t < count; ++t) {
    for (int64_t i = 0; i < d; ++i) {
      double& sum = expected[tokens[t]][i];
      sum = nearest<float>(sum + dx[t][i]);
    }
  }
  Cells<T> rows(dx, room, shift);
  Cells<float> table(before, room, shift);
  const TokenRuns work = token_runs(tokens);
  const Array<int64_t> order(work.order.begin(), work.order.end());
  const Array<TokenRun> runs(work.runs.begin(), work.runs.end());
  embedding_backward({.element = Numbers<T>::kElement,
                      .d = d,
                      .dx = rows.data(),
                      .dx_row = rows.stride(),
                      .order = order.data(),
                      .runs = runs.data(),
                      .run_count = static_cast<int64_t>(runs.size()),
                      .dtable = table.data(),
                      .dtable_row = table.stride()},
                     nullptr);
  CHECK(table.values().data == expected.data);
}

}  // namespace

TEMPLATE_TEST_CASE("the embedding's gradient adds every token's rows in their order", "[embedding]", float, bf16,
                   fp16) {
  std::vector<int32_t> many;
  longlora::SplitMix random(3);
  for (int i = 0; i < 100; ++i) many.push_back(static_cast<int32_t>(random.below(20)));
  check<TestType>({4}, 5, 1, 0, 0, 1);
  check<TestType>({}, 5, 8, 0, 0, 2);
  check<TestType>({2, 0, 2, 2, 1, 2}, 3, 64, 0, 0, 3);
  check<TestType>({2, 0, 2, 2, 1, 2}, 3, 64, 8, 8, 4);
  check<TestType>(many, 20, 100, 0, 0, 5);
  check<TestType>(many, 30, 72, 3, 1, 6);
  check<TestType>(std::vector<int32_t>(50, 1), 2, 2056, 0, 0, 7);
}

TEST_CASE("token runs name every place once, the longest run first", "[embedding]") {
  const TokenRuns runs = token_runs(std::vector<int32_t>{7, 3, 7, 0, 7, 3});
  CHECK(runs.order == std::vector<int64_t>{3, 1, 5, 0, 2, 4});
  REQUIRE(runs.runs.size() == 3);
  CHECK((runs.runs[0].token == 7 && runs.runs[0].begin == 3 && runs.runs[0].end == 6));
  CHECK((runs.runs[1].token == 3 && runs.runs[1].begin == 1 && runs.runs[1].end == 3));
  CHECK((runs.runs[2].token == 0 && runs.runs[2].begin == 0 && runs.runs[2].end == 1));
  CHECK_THROWS_WITH(token_runs(std::vector<int32_t>{1, -1}), Catch::Contains("token -1 at 1"));
}

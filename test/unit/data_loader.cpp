// The loader: every row once an epoch, the same rows whatever micro is, and a resumed run sees what it would
// have seen.
#include <catch2/catch.hpp>
#include <numeric>
#include <set>

#include "core/data/loader.h"
#include "core/data/permutation.h"
#include "test/unit/data_support.h"

using namespace longlora;
using namespace longlora::data;
using longlora::test::error_of;
using longlora::test::raw;

namespace {

constexpr int64_t kLength = 4;

std::shared_ptr<const Rows> rows_of(const test::Folder& folder, int64_t rows, int64_t length = kLength) {
  std::vector<uint16_t> ids(static_cast<size_t>(rows * length + 1));
  std::iota(ids.begin(), ids.end(), 0);
  SourceOptions options;
  options.patterns = {folder.write("a.bin", raw(ids)).string()};
  options.vocab = 65536;
  auto source = std::make_shared<TokenSource>(TokenSource::open(options));
  return std::make_shared<Rows>(std::move(source), Packing::stream, length, 0);
}

// The rows of a step, by their first token.
std::vector<int64_t> numbers(const std::vector<Batch>& batches) {
  std::vector<int64_t> all;
  for (const Batch& batch : batches) {
    for (int64_t r = 0; r < batch.rows; ++r) {
      all.push_back(batch.tokens[static_cast<size_t>(r * batch.length)] / batch.length);
    }
  }
  return all;
}

}  // namespace

TEST_CASE("the permutation meets every number once and is another for every seed", "[data][loader]") {
  for (uint64_t n = 1; n <= 300; ++n) {
    const Permutation order(n, n * 7);
    std::set<uint64_t> seen;
    for (uint64_t i = 0; i < n; ++i) seen.insert(order(i));
    REQUIRE(seen.size() == n);
    REQUIRE(*seen.rbegin() == n - 1);
  }
  for (const uint64_t n : {uint64_t{100003}, uint64_t{65536}, uint64_t{65537}}) {
    std::vector<bool> seen(n, false);
    const Permutation order(n, 1);
    for (uint64_t i = 0; i < n; ++i) seen[order(i)] = true;
    CHECK(std::count(seen.begin(), seen.end(), false) == 0);
  }
}

TEST_CASE("each number comes to each place equally often over the seeds", "[data][loader]") {
  const uint64_t n = GENERATE(2, 3, 5, 8, 10);
  constexpr int kSeeds = 20000;
  std::vector<std::vector<int>> count(n, std::vector<int>(n, 0));
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    const Permutation order(n, seed);
    for (uint64_t i = 0; i < n; ++i) ++count[i][order(i)];
  }
  const double expected = static_cast<double>(kSeeds) / static_cast<double>(n);
  for (const auto& place : count) {
    for (const int times : place) CHECK(std::abs(times - expected) < 6 * std::sqrt(expected));  // six sigma
  }
}

TEST_CASE("an epoch hands out every row once, in another order each time", "[data][loader]") {
  const test::Folder folder;
  const auto rows = rows_of(folder, 37);
  Loader loader(rows, 42, true);
  std::set<std::vector<int64_t>> orders;
  for (int epoch = 0; epoch < 5; ++epoch) {
    CHECK(loader.cursor() == Cursor{epoch, 0});
    std::vector<int64_t> order;
    for (const int64_t step : {10, 20, 7}) {
      for (const int64_t row : numbers(loader.next_step(step, 3))) order.push_back(row);
    }
    CHECK(std::set<int64_t>(order.begin(), order.end()).size() == 37);
    orders.insert(order);
  }
  CHECK(orders.size() == 5);
  Loader plain(rows, 42, false);
  std::vector<int64_t> in_order(37);
  std::iota(in_order.begin(), in_order.end(), 0);
  CHECK(numbers(plain.next_step(37, 5)) == in_order);
  CHECK(numbers(plain.next_step(37, 37)) == in_order);
  Loader other(rows, 43, true), same(rows, 42, true);
  CHECK(orders.contains(numbers(same.next_step(37, 1))));
  CHECK(!orders.contains(numbers(other.next_step(37, 1))));
}

TEST_CASE("the rows of a step don't depend on micro", "[data][loader]") {
  const test::Folder folder;
  const auto rows = rows_of(folder, 23);
  Loader reference(rows, 1, true);
  for (int step = 0; step < 10; ++step) {
    const nlohmann::json before = reference.save();
    const auto expected = numbers(reference.next_step(12, 12));
    for (const int64_t micro : {1, 2, 3, 5, 7, 11, 12, 100}) {
      Loader loader(rows, 1, true);
      loader.restore(before);
      CHECK(loader.peek(12) == expected);
      const std::vector<Batch> batches = loader.next_step(12, micro);
      CHECK(numbers(batches) == expected);
      CHECK(static_cast<int64_t>(batches.size()) == (12 + micro - 1) / micro);
      for (size_t i = 0; i + 1 < batches.size(); ++i) CHECK(batches[i].rows == micro);
      CHECK(loader.cursor() == reference.cursor());
    }
  }
}

TEST_CASE("a restored loader goes on as the uninterrupted one", "[data][loader]") {
  const test::Folder folder;
  const auto rows = rows_of(folder, 10);
  const int64_t sequences = GENERATE(1, 3, 10, 25);  // also steps of more than two epochs
  Loader whole(rows, 9, true);
  std::vector<std::string> places;
  std::vector<std::vector<int64_t>> steps;
  for (int i = 0; i < 12; ++i) {
    places.push_back(whole.save().dump());
    steps.push_back(numbers(whole.next_step(sequences, 2)));
  }
  for (size_t from = 0; from < places.size(); ++from) {
    Loader resumed(rows_of(folder, 10), 9, true);
    resumed.restore(nlohmann::json::parse(places[from]));
    for (size_t i = from; i < steps.size(); ++i) CHECK(numbers(resumed.next_step(sequences, 4)) == steps[i]);
  }
}

TEST_CASE("a place in other data is refused", "[data][loader]") {
  const test::Folder folder, other;
  const nlohmann::json saved = Loader(rows_of(folder, 10), 9, true).save();
  const auto restore = [&](std::shared_ptr<const Rows> rows, uint64_t seed, bool shuffle, const nlohmann::json& place) {
    return error_of([&] { Loader(std::move(rows), seed, shuffle).restore(place); });
  };
  CHECK(restore(rows_of(other, 10), 9, true, saved) == "no error");  // the same data in another folder
  CHECK(restore(rows_of(other, 11), 9, true, saved).starts_with("2|"));
  CHECK(restore(rows_of(other, 20, 2), 9, true, saved).starts_with("2|"));
  CHECK(restore(rows_of(folder, 10), 8, true, saved).starts_with("2|"));
  CHECK(restore(rows_of(folder, 10), 9, false, saved).starts_with("2|"));
  nlohmann::json beyond = saved;
  beyond["row"] = 10;
  CHECK(restore(rows_of(folder, 10), 9, true, beyond).starts_with("3|"));
  CHECK(restore(rows_of(folder, 10), 9, true, {{"epoch", 1}}).starts_with("3|"));
}

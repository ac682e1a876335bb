// Ranks as threads that wait for one another, as in the operations between ranks, and are stopped at any moment.
#include <random>
#include <thread>

#include <catch2/catch.hpp>

#include "core/base/error.h"
#include "core/dist/leaving.h"

using namespace longlora;
using namespace std::chrono_literals;
using dist::Leaving, dist::Point;

namespace {

constexpr auto kPatience = 30s;  // only a test that fails waits so long

// All of `count` threads meet in it, time and again.
class Operation {
 public:
  explicit Operation(size_t count) : count_(count) {}
  [[nodiscard]] bool meet() {
    std::unique_lock hold(lock_);
    const size_t round = met_ / count_;
    if (++met_ % count_ == 0) {
      all_.notify_all();
      return true;
    }
    return all_.wait_for(hold, kPatience, [&] { return met_ / count_ > round; });
  }

 private:
  size_t count_, met_ = 0;
  std::mutex lock_;
  std::condition_variable all_;
};

struct Rank {
  Leaving leaving;
  int64_t first_part = 0;  // some have fewer parts, without an operation in the ones they lack
  Point left;
  bool lost = false;
};

constexpr int64_t kSteps = 400, kParts = 3, kPlaces = 5;

// A step meets at its begin, in the places of its last part, and after it.
void work(Rank& rank, Operation& operation) {
  const auto pass = [&](const Point& point, bool meets) {
    if (rank.leaving.leave_at(point, kPatience)) {
      rank.left = point;
      return false;
    }
    rank.lost = meets && !operation.meet();
    return !rank.lost;
  };
  for (int64_t step = 0; step < kSteps; ++step) {
    if (!pass({step, -1, 0}, true)) return;
    for (int64_t part = rank.first_part; part < kParts; ++part) {
      for (int64_t place = 0; place < kPlaces; ++place)
        if (!pass({step, part, place}, part == kParts - 1)) return;
    }
    if (!pass({step, kParts, 0}, true)) return;
  }
}

}  // namespace

TEST_CASE("ranks that are stopped at any moment leave without one waiting for another", "[dist]") {
  const auto seed = static_cast<unsigned>(std::random_device()());
  CAPTURE(seed);
  std::mt19937 chance(seed);
  for (int round = 0; round < 40; ++round) {
    std::vector<Rank> ranks(2 + chance() % 3);
    for (size_t r = 1; r < ranks.size(); ++r) ranks[r].first_part = chance() % kParts;
    Operation operation(ranks.size());
    std::vector<std::thread> threads;
    for (Rank& rank : ranks) threads.emplace_back([&] { work(rank, operation); });
    std::this_thread::sleep_for(std::chrono::microseconds(chance() % 3000));
    std::vector<size_t> order(ranks.size());
    for (size_t r = 0; r < order.size(); ++r) order[r] = r;
    std::shuffle(order.begin(), order.end(), chance);
    std::vector<Point> passed;
    for (const size_t r : order) {
      passed.push_back(dist::point_of(dist::to_text(ranks[r].leaving.hold())));
      std::this_thread::sleep_for(std::chrono::microseconds(chance() % 300));
    }
    std::shuffle(order.begin(), order.end(), chance);
    for (const size_t r : order) ranks[r].leaving.agree_on(dist::leave_after(passed));
    for (std::thread& thread : threads) thread.join();
    for (const Rank& rank : ranks) {
      CHECK_FALSE(rank.lost);
      CHECK(rank.left.step == ranks[0].left.step);
    }
  }
}

TEST_CASE("a rank that cannot agree with the others says so and does not wait for ever", "[dist]") {
  Leaving leaving;
  CHECK_FALSE(leaving.leave_at({0, 0, 0}, kPatience));
  CHECK(leaving.hold() == Point{0, 0, 0});
  SECTION("nobody answers") {
    CHECK_THROWS_WITH(leaving.leave_at({0, 0, 1}, 1ms), Catch::Contains("does not answer"));
  }
  SECTION("the others are gone") {
    leaving.give_up("the job's meeting point is gone");
    CHECK_THROWS_WITH(leaving.leave_at({0, 0, 1}, kPatience), Catch::Contains("meeting point is gone"));
  }
}

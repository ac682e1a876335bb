// The operations between ranks, on threads of this process that meet as processes do.
#include <ATen/ATen.h>

#include <catch2/catch.hpp>
#include <thread>

#include "core/base/error.h"
#include "core/dist/job.h"

namespace longlora {
namespace {

using namespace std::chrono_literals;

struct Rank {
  dist::Job& job;
  dist::Group& group;
  int rank, size;
};

// `work` on every rank at once; what a rank throws is returned in its place.
std::vector<std::string> on_ranks(int size, const std::function<void(Rank)>& work,
                                  std::chrono::milliseconds timeout = 20s) {
  const dist::Store table = dist::Store::host();
  std::vector<std::string> errors(static_cast<size_t>(size));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      try {
        dist::Launch launch;
        launch.rank = launch.local_rank = rank;
        launch.size = launch.local_size = size;
        launch.address = "127.0.0.1";
        launch.port = table.port();
        launch.hosted = true;
        dist::Job job(launch, timeout);
        job.open_group();
        work({job, job.group(), rank, size});
      } catch (const std::exception& error) {
        errors[static_cast<size_t>(rank)] = error.what();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  return errors;
}

void require_no_errors(const std::vector<std::string>& errors) {
  for (const std::string& error : errors) REQUIRE(error.empty());
}

at::Tensor random(int64_t count, int rank, at::ScalarType type) {
  const auto generator = at::make_generator<at::CPUGeneratorImpl>(static_cast<uint64_t>(100 + rank));
  return type == at::kLong ? at::randint(-1000, 1000, {count}, generator, at::kLong)
                           : at::randn({count}, generator, type);
}

}  // namespace

TEST_CASE("every operation gives every rank what it should", "[dist]") {
  const int size = GENERATE(1, 2, 3, 4);
  const int64_t count = GENERATE(1, 7, 100003);
  const at::ScalarType type = GENERATE(at::kFloat, at::kDouble, at::kLong);
  at::Tensor sum = at::zeros({count}, type == at::kLong ? at::kLong : at::kDouble), parts = sum;
  std::vector<at::Tensor> of;
  for (int rank = 0; rank < size; ++rank) {
    of.push_back(random(count, rank, type));
    sum = sum + of.back();
  }
  std::vector<at::Tensor> reduced(static_cast<size_t>(size)), again = reduced, cast = reduced, gathered = reduced,
                                                              scattered = reduced, received = reduced;
  std::vector<int64_t> sent(static_cast<size_t>(size));
  const auto work = [&](Rank r) {
    const auto i = static_cast<size_t>(r.rank);
    reduced[i] = of[i].clone();
    r.group.all_reduce(reduced[i]);
    again[i] = of[i].clone();
    r.group.all_reduce(again[i]);
    cast[i] = of[i].clone();
    r.group.broadcast(cast[i], r.size - 1);
    gathered[i] = at::empty({r.size, count}, type);
    r.group.all_gather(gathered[i], of[i]);
    scattered[i] = at::empty({count}, type);
    r.group.reduce_scatter(scattered[i], gathered[i]);
    received[i] = of[i].clone();
    if (r.size > 1) {  // round the ring, while the neighbour does the same
      const std::vector<dist::Message> send = {{of[i], (r.rank + 1) % r.size}},
                                       receive = {{received[i], (r.rank + r.size - 1) % r.size}};
      r.group.exchange(send, receive);
    }
    r.group.barrier();
    sent[i] = r.group.traffic(dist::Operation::all_reduce).bytes;
  };
  if (size == 1) {
    dist::Job job;
    work({job, job.group(), 0, 1});
  } else {
    require_no_errors(on_ranks(size, work));
  }
  // Of n random numbers of size about 1 added in any order.
  const double tolerance = type == at::kFloat ? 1e-6 * size : type == at::kDouble ? 1e-15 * size : 0;
  for (size_t i = 0; i < static_cast<size_t>(size); ++i) {
    INFO("rank " << i << " of " << size << ", " << count << " of " << toString(type));
    CHECK((reduced[i].to(sum.scalar_type()) - sum).abs().max().item<double>() <= tolerance * 10);
    CHECK(at::equal(reduced[i], reduced[0]));  // the same bits on all ranks,
    CHECK(at::equal(reduced[i], again[i]));    // and again
    CHECK(at::equal(cast[i], of[static_cast<size_t>(size) - 1]));
    CHECK(at::equal(gathered[i], at::stack(of)));
    CHECK((scattered[i] - of[i] * size).abs().to(at::kDouble).max().item<double>() <= tolerance * 10);
    CHECK(at::equal(received[i], of[(i + static_cast<size_t>(size) - 1) % static_cast<size_t>(size)]));
    CHECK(sent[i] == 2 * static_cast<int64_t>(of[i].nbytes()));
  }
}

TEST_CASE("shares are contiguous, complete and differ by one at most", "[dist]") {
  for (const int64_t total : {0, 1, 4, 7, 64}) {
    for (int size = 1; size <= 9; ++size) {
      int64_t end = 0;
      for (int rank = 0; rank < size; ++rank) {
        const dist::Share share = dist::share_of(total, rank, size);
        CHECK(share.begin == end);
        CHECK((share.size() == total / size || share.size() == total / size + 1));
        end = share.end;
      }
      CHECK(end == total);
    }
  }
}

TEST_CASE("rank 0 works first, the others when it is done", "[dist]") {
  std::atomic<bool> done = false;
  std::atomic<int> early = 0, after = 0;
  require_no_errors(on_ranks(3, [&](Rank r) {
    r.job.first_then_others("data", [&] {
      if (r.rank == 0) {
        std::this_thread::sleep_for(200ms);
        done = true;
      } else {
        done ? ++after : ++early;
      }
    });
  }));
  CHECK((early == 0 && after == 2));
}

TEST_CASE("ranks that do not run the same thing are told so", "[dist]") {
  const auto errors = on_ranks(3, [](Rank r) { r.job.check_same("recipe", r.rank == 2 ? "b" : "a"); });
  for (const std::string& error : errors) CHECK_THAT(error, Catch::Contains("rank 2 has another recipe than rank 0"));
}

TEST_CASE("a rank that does not come is given up, and the others' errors say what it was doing", "[dist]") {
  const auto errors = on_ranks(
      2,
      [](Rank r) {
        r.job.activity().enter_step(7);
        r.job.activity().enter(r.rank == 0 ? "optimizer" : "reading rows");
        std::this_thread::sleep_for(500ms);
        if (r.rank == 1) return std::this_thread::sleep_for(4s);
        r.group.barrier();
      },
      1s);
  INFO(errors[0]);
  CHECK_THAT(errors[0], Catch::Contains("barrier"));
  CHECK_THAT(errors[0], Catch::Contains("rank 0: step 7, optimizer; in barrier 1"));
  CHECK_THAT(errors[0], Catch::Contains("rank 1: step 7, reading rows"));
}

}  // namespace longlora

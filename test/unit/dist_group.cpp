// The operations between ranks, on threads of this process that meet as processes do.
#include <ATen/ATen.h>

#include <catch2/catch.hpp>

#include "test/unit/ranks.h"

namespace longlora {
namespace {

at::Tensor random(int64_t count, int rank, at::ScalarType type) {
  const auto generator = at::make_generator<at::CPUGeneratorImpl>(static_cast<uint64_t>(100 + rank));
  return type == at::kLong ? at::randint(-1000, 1000, {count}, generator, at::kLong)
                           : at::randn({count}, generator, type);
}

}  // namespace

// What one rank got out of the operations.
struct Got {
  at::Tensor reduced, again, cast, gathered, scattered, received;
  int64_t sent;  // bytes given to all_reduce
};

Got use_all(Rank r, const at::Tensor& mine) {
  Got got;
  const int64_t before = r.group.traffic(dist::Operation::all_reduce).bytes;
  got.reduced = mine.clone();
  r.group.all_reduce(got.reduced);
  got.again = mine.clone();
  r.group.all_reduce(got.again);
  got.cast = mine.clone();
  r.group.broadcast(got.cast, r.size - 1);
  got.gathered = at::empty({r.size, mine.numel()}, mine.options());
  r.group.all_gather(got.gathered, mine);
  got.scattered = at::empty_like(mine);
  r.group.reduce_scatter(got.scattered, got.gathered);
  got.received = mine.clone();
  if (r.size > 1) {  // round the ring, while the neighbours do the same
    const std::vector<dist::Message> send = {{mine, (r.rank + 1) % r.size}},
                                     receive = {{got.received, (r.rank + r.size - 1) % r.size}};
    r.group.exchange(send, receive);
  }
  r.group.barrier();
  got.sent = r.group.traffic(dist::Operation::all_reduce).bytes - before;
  return got;
}

TEST_CASE("every operation gives every rank what it should", "[dist]") {
  const std::vector<int64_t> counts = {1, 7, 100003};
  const std::vector<at::ScalarType> types = {at::kFloat, at::kDouble, at::kLong};
  const int size = GENERATE(1, 2, 3, 4);
  const auto ranks = static_cast<size_t>(size);
  std::vector<std::vector<at::Tensor>> of;  // [case][rank]
  for (const int64_t count : counts) {
    for (const at::ScalarType type : types) {
      of.emplace_back();
      for (int rank = 0; rank < size; ++rank) of.back().push_back(random(count, rank, type));
    }
  }
  std::vector<std::vector<Got>> got(of.size(), std::vector<Got>(ranks));
  const auto work = [&](Rank r) {
    for (size_t i = 0; i < of.size(); ++i)
      got[i][static_cast<size_t>(r.rank)] = use_all(r, of[i][static_cast<size_t>(r.rank)]);
  };
  if (size == 1) {
    dist::Job job;
    work({job, job.group(), 0, 1});
  } else {
    require_no_errors(on_ranks(size, work));
  }
  for (size_t i = 0; i < of.size(); ++i) {
    const at::ScalarType type = of[i][0].scalar_type(), wide = type == at::kLong ? at::kLong : at::kDouble;
    const at::Tensor sum = at::stack(of[i]).to(wide).sum(0), size_of_terms = at::stack(of[i]).to(wide).abs().sum(0);
    // Each of the additions rounds once.
    const double unit = type == at::kFloat ? 0x1p-24 : type == at::kDouble ? 0x1p-53 : 0;
    for (size_t rank = 0; rank < ranks; ++rank) {
      INFO("rank " << rank << " of " << size << ", " << of[i][0].numel() << " of " << toString(type));
      const Got& g = got[i][rank];
      CHECK(((g.reduced.to(wide) - sum).abs() <= size_of_terms * (unit * size)).all().item<bool>());
      CHECK(at::equal(g.reduced, got[i][0].reduced));  // the same bits on all ranks,
      CHECK(at::equal(g.reduced, g.again));            // and again
      CHECK(at::equal(g.cast, of[i].back()));
      CHECK(at::equal(g.gathered, at::stack(of[i])));
      const at::Tensor times = of[i][rank].to(wide) * size;
      CHECK(((g.scattered.to(wide) - times).abs() <= times.abs() * (unit * size)).all().item<bool>());
      CHECK(at::equal(g.received, of[i][(rank + ranks - 1) % ranks]));
      CHECK(g.sent == 2 * static_cast<int64_t>(of[i][rank].nbytes()));
    }
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

TEST_CASE("of two ranks with one GPU the later is refused, and ranks whose GPUs are unknown are not suspected",
          "[dist]") {
  const auto gpu = [](const std::string& id) {
    return Gpu{.name = "H200", .id = id, .major = 9, .minor = 0, .memory = 0};
  };
  const std::vector<Gpu> gpus = {gpu(std::string(32, 'a')), gpu(""), gpu(std::string(32, 'b')),
                                 gpu(std::string(32, 'a')), gpu("")};
  const auto errors = on_ranks(5, [&](Rank r) { r.job.claim_gpu(gpus[static_cast<size_t>(r.rank)]); });
  CHECK_THAT(errors[0] + errors[3], Catch::StartsWith("ranks 0 and 3 have the same GPU (H200)"));
  CHECK((errors[0].empty() != errors[3].empty()));
  CHECK((errors[1].empty() && errors[2].empty() && errors[4].empty()));
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

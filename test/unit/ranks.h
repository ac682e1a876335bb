// Ranks of a job as threads of this process that meet as processes do.
#pragma once
#include <ATen/ATen.h>

#include <catch2/catch.hpp>
#include <cstdlib>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "core/base/error.h"
#include "core/dist/job.h"

namespace longlora {

using namespace std::chrono_literals;

struct Rank {
  dist::Job& job;
  dist::Group& group;
  int rank, size;
};

// `work` on every rank at once; what a rank throws is returned in its place.
inline std::vector<std::string> on_ranks(int size, const std::function<void(Rank)>& work,
                                         std::chrono::milliseconds timeout = 20s, int64_t sequence_size = 1) {
  // c10d's log of operations is one a process and not made for ranks on threads; a size of 0 switches it off.
  ::setenv("TORCH_FR_BUFFER_SIZE", "0", 1);
  const dist::Store table = dist::Store::host();
  std::vector<std::string> errors(static_cast<size_t>(size));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      try {
        dist::Launch launch;
        launch.rank = launch.local_rank = rank;
        launch.size = launch.local_size = size;
        launch.address = "localhost";
        launch.port = table.port();
        launch.hosted = true;
        dist::Job job(launch, timeout);
        job.open_group(sequence_size);
        work({job, job.group(), rank, size});
      } catch (const std::exception& error) {
        errors[static_cast<size_t>(rank)] = error.what();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  return errors;
}

inline void require_no_errors(const std::vector<std::string>& errors) {
  for (const std::string& error : errors) REQUIRE(error == "");
}

}  // namespace longlora

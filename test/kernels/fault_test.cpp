// Mistakes planted one by one: the host build must catch each, and say what it was.
#include <catch2/catch.hpp>

#include <algorithm>
#include <cstring>
#include <vector>

#include "cuda/host/convert.h"
#include "test/kernels/kernels.h"
#include "test/kernels/support.h"

using namespace longlora::cuda;
using test::Fault;

namespace {

// What stops the kernel, in a process of its own; "wrong values" where it ran to its end and gave them.
std::string outcome(Fault fault) {
  return test::what_stops([fault] {
    std::vector<float> in(64), out(64);
    for (size_t i = 0; i < in.size(); ++i) in[i] = static_cast<float>(i + 1);
    test::reverse_with(fault, in.data(), out.data(), nullptr);
    if (!std::equal(out.begin(), out.end(), in.rbegin())) throw std::runtime_error("wrong values");
  });
}

struct Planted {
  Fault fault;
  const char* name;
  const char* says;  // part of the message
  enum { always, in_some_order, in_race_mode } caught;
};

}  // namespace

TEST_CASE("every planted fault is caught and named", "[faults][host]") {
  const Planted planted[] = {
      {Fault::missing_barrier, "missing barrier", "reads what", Planted::in_some_order},
      {Fault::some_miss_barrier, "some threads miss a barrier",
       "threads 40..63 ended; threads 0..39 wait at __syncthreads fault_kernels.cu:", Planted::always},
      {Fault::early_exit, "a thread ends before a barrier",
       "thread 5 ended; threads 0..4, 6..63 wait at __syncthreads fault_kernels.cu:", Planted::always},
      {Fault::other_line, "two barriers at two lines",
       "waits for it at __syncthreads fault_kernels.cu:", Planted::always},
      {Fault::wrong_wait, "wait for one group too few", "", Planted::always},
      {Fault::no_wait, "no wait", "", Planted::always},
      {Fault::overrun, "overrun into the next buffer", "past the end of", Planted::always},
      {Fault::static_overrun, "overrun of a static array", "past the end of", Planted::always},
      {Fault::dynamic_overrun, "overrun of the last buffer", "past the end of", Planted::always},
      {Fault::lane_outside_mask, "a lane that its mask lacks", "lacks its own lane", Planted::always},
      {Fault::overlapping_masks, "overlapping masks", "with mask", Planted::always},
      {Fault::lane_exited, "a lane that ended", "wait at __shfl_sync fault_kernels.cu:", Planted::always},
      {Fault::source_outside_mask, "a source outside of the mask", "reads lane 20, which is not in its mask 0000ffff",
       Planted::always},
      {Fault::uninitialised, "shared memory that nobody wrote", "", Planted::always},
      {Fault::missing_syncwarp, "missing __syncwarp", "race: ", Planted::in_race_mode},
      {Fault::too_much_shared, "more shared memory than the launch gave", "dynamic shared memory; the launch gave 512",
       Planted::always},
  };
  for (const Planted& plant : planted) {
    int caught = 0;
    std::string said;
    test::in_every_order([&] {
      const std::string text = outcome(plant.fault);
      caught += !text.empty();
      if (!text.empty()) said = text;
      // AddressSanitizer speaks for itself, wrong values are seen by a test of values, race mode may be earlier.
      const bool known = text.empty() || text == "wrong values" || text == "sanitizer" ||
                         text.find(plant.says) != std::string::npos ||
                         (host::race_mode() && text.find("reads what") != std::string::npos);
      if (!known) FAIL(plant.name << ": " << text);
    });
    INFO(plant.name << ": " << said);
    if (plant.caught == Planted::always || host::race_mode()) CHECK(caught == 3);
    if (plant.caught == Planted::in_some_order) CHECK(caught > 0);
  }
}

TEST_CASE("fragments in a wrong layout give another product", "[faults][host]") {
  std::vector<bf16> a(16 * 16), b(16 * 8);
  for (size_t i = 0; i < a.size(); ++i) a[i].bits = host::float_to_bf16_bits(static_cast<float>(i * 7 % 13));
  for (size_t i = 0; i < b.size(); ++i) b[i].bits = host::float_to_bf16_bits(static_cast<float>(i * 5 % 11));
  std::vector<float> right(16 * 8), wrong(16 * 8);
  test::small_product(a.data(), b.data(), right.data(), false, test::Layout::right, nullptr);
  for (const auto layout : {test::Layout::a_swapped, test::Layout::b_swapped, test::Layout::not_transposed}) {
    test::small_product(a.data(), b.data(), wrong.data(), false, layout, nullptr);
    CHECK(wrong != right);
  }
}

TEST_CASE("what has no fault is not complained of", "[faults][host]") {
  test::in_every_order([] { REQUIRE(outcome(Fault::none).empty()); });
}

TEST_CASE("copies that arrive at once hide a wrong wait, late ones show it", "[faults][host]") {
  if (host::race_mode()) return;
  const test::OptionsRestored restored;
  host::options().eager_copies = true;
  CHECK(outcome(Fault::wrong_wait).empty());
  host::options().eager_copies = false;
  CHECK(!outcome(Fault::wrong_wait).empty());
}

// How long waiting threads spin in the program, as libgomp itself says it.
#include <catch2/catch.hpp>

#include "process.h"

namespace longlora {
namespace {

std::string settings_under(const std::string& variables) {
  const test::Outcome out = test::run_in_shell("env -u GOMP_SPINCOUNT -u OMP_WAIT_POLICY OMP_DISPLAY_ENV=verbose " +
                                               variables + " '" LONGLORA_BINARY "' --version");
  REQUIRE(out.code == 0);
  CHECK_THAT(out.text, Catch::Contains("longlora 0."));
  return out.text;
}

}  // namespace

TEST_CASE("waiting threads spin for a bounded time, unless the user says otherwise", "[spin][verb]") {
  CHECK_THAT(settings_under(""), Catch::Contains("GOMP_SPINCOUNT = '10000'"));
  CHECK_THAT(settings_under("GOMP_SPINCOUNT=77"), Catch::Contains("GOMP_SPINCOUNT = '77'"));
  CHECK_THAT(settings_under("OMP_WAIT_POLICY=passive"), Catch::Contains("GOMP_SPINCOUNT = '0'"));
}

}  // namespace longlora

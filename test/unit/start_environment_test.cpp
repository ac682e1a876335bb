// What the program sets in its environment before it starts: how long waiting threads spin, as libgomp itself says it, and
// memory in huge pages, as Linux says it of this process, which starts in the same way.
#include <catch2/catch.hpp>

#include <cstdlib>
#include <fstream>
#include <sstream>

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

TEST_CASE("memory is in huge pages where Linux gives them on request, unless the user set glibc's tunables",
          "[spin][verb]") {
  std::string modes;
  std::getline(std::ifstream("/sys/kernel/mm/transparent_hugepage/enabled"), modes);
  const char* const tunables = std::getenv("GLIBC_TUNABLES");
  REQUIRE(tunables != nullptr);
#if defined(__SANITIZE_ADDRESS__)
  modes.clear();  // its allocator is not glibc's
#endif
  if (modes.find("[madvise]") != std::string::npos && std::string(tunables) == "glibc.malloc.hugetlb=1") {
    const std::vector<char> large(64 << 20);
    std::ifstream file("/proc/self/smaps");
    std::stringstream maps;
    maps << file.rdbuf();
    CHECK_THAT(maps.str(), Catch::Contains(" hg"));  // the flag of an area that asks for them
  }
  CHECK_THAT(settings_under("GLIBC_TUNABLES=glibc.malloc.arena_max=2"), Catch::Contains("GOMP_SPINCOUNT = '10000'"));
}

}  // namespace longlora

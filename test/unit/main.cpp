// The tests' entry: Catch2's, after --isa (scripts/test --isa SET), which limits the instruction set for the tests and
// for what they start.
#define CATCH_CONFIG_RUNNER
#include <catch2/catch.hpp>

#include <cstdio>

#include "core/base/error.h"
#include "core/base/isa.h"

int main(int argc, char** argv) {
  try {
    longlora::take_isa_option(argc, argv);
  } catch (const longlora::Error& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return static_cast<int>(error.code());
  }
  return Catch::Session().run(argc, argv);
}

// The kernel tests on a GPU: everything but what is about the host build. Without a GPU it says so and runs nothing.
#define CATCH_CONFIG_RUNNER
#include <catch2/catch.hpp>

#include <cstdio>

#include "test/kernels/gpu/memory.h"

int main(int argc, char** argv) {
  if (!longlora::cuda::test::have_gpu()) {
    std::puts("skip  no GPU here");
    return 0;
  }
  Catch::Session session;
  if (const int status = session.applyCommandLine(argc, argv); status != 0) return status;
  session.configData().testsOrTags.push_back("~[host]");
  return session.run();
}

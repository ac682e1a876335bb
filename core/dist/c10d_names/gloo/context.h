// ProcessGroupGloo.hpp of LibTorch includes Gloo's headers, which its wheel lacks, although libtorch_cpu.so holds all of
// Gloo. These five files declare the names that it mentions, of objects that only LibTorch itself makes and looks into.
#pragma once
#include <chrono>
#include <memory>

namespace gloo {

class Context {
 public:
  void setTimeout(std::chrono::milliseconds timeout);
};

}  // namespace gloo

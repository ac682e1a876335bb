// What a launch throws when it cannot run or did not start. Callers above cuda/ turn it into the program's errors.
#pragma once
#include <stdexcept>
#include <string>

namespace longlora::cuda {

class LaunchError : public std::runtime_error {
 public:
  explicit LaunchError(const std::string& message) : std::runtime_error("CUDA kernel: " + message) {}
};

}  // namespace longlora::cuda

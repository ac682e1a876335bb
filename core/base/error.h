// Errors that a user meets: one clear line that names file, place and remedy, and the exit code that goes
// with it. Throw with fail(), usage_error() or input_error(); only main() catches and turns them into an exit
// status.
#pragma once
#include <stdexcept>
#include <string>

#include <fmt/format.h>

namespace longlora {

// The program's exit codes (documented in --help).
enum class Exit : int {
  done = 0,          // all went well
  failed = 1,        // failed while running
  usage = 2,         // wrong usage or recipe
  input = 3,         // an input file is missing or damaged
  interrupted = 75,  // saved and stopped on a signal; the same command (train and sft: with --resume) goes on
  quit = 130,        // ended by a second Ctrl-C without saving
};

class Error : public std::runtime_error {
 public:
  Error(Exit code, const std::string& message) : std::runtime_error(message), code_(code) {}
  [[nodiscard]] Exit code() const { return code_; }

 private:
  Exit code_;
};

// Something went wrong while running (exit 1).
template <class... Args>
[[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(Exit::failed, fmt::format(format, std::forward<Args>(args)...));
}

// The command line or the recipe is wrong (exit 2).
template <class... Args>
[[noreturn]] void usage_error(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(Exit::usage, fmt::format(format, std::forward<Args>(args)...));
}

// An input file is missing or damaged (exit 3).
template <class... Args>
[[noreturn]] void input_error(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(Exit::input, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace longlora

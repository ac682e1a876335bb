// The program as another process.
#pragma once
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <vector>

namespace longlora::test {

// Starts the program with its output thrown away.
inline pid_t start(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), LONGLORA_BINARY);
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  const pid_t pid = ::fork();
  if (pid == 0) {
    const int nowhere = ::open("/dev/null", O_WRONLY);
    ::dup2(nowhere, STDOUT_FILENO);
    ::dup2(nowhere, STDERR_FILENO);
    ::execv(argv[0], argv.data());
    ::_exit(127);
  }
  return pid;
}

// Waits for its end; 128 + the signal that ended it.
inline int exit_code(pid_t pid) {
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

struct Outcome {
  int code;
  std::string text;  // both streams
};

// Runs words that a shell reads, in which names of files are quoted.
inline Outcome run_in_shell(const std::string& words) {
  FILE* pipe = ::popen((words + " 2>&1").c_str(), "r");
  if (pipe == nullptr) throw std::runtime_error("cannot start a shell");
  Outcome out{0, ""};
  std::array<char, 4096> buffer{};
  for (size_t n = 0; (n = std::fread(buffer.data(), 1, buffer.size(), pipe)) > 0;) out.text.append(buffer.data(), n);
  const int status = ::pclose(pipe);
  if (!WIFEXITED(status)) throw std::runtime_error("killed: " + words);
  out.code = WEXITSTATUS(status);
  return out;
}

}  // namespace longlora::test

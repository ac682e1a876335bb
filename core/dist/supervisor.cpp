#include "core/dist/supervisor.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "core/base/file.h"
#include "core/base/signal.h"
#include "core/dist/store.h"

namespace longlora::dist {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

constexpr auto kGrace = 4s;  // for the ranks to end by themselves once one has failed

// Null-terminated, as exec takes them.
std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> all;
  for (std::string& text : texts) all.push_back(text.data());
  all.push_back(nullptr);
  return all;
}

std::vector<std::string> own_arguments() {
  const std::string all = read_file("/proc/self/cmdline");
  std::vector<std::string> arguments;
  for (size_t begin = 0; begin < all.size(); begin = all.find('\0', begin) + 1) arguments.emplace_back(&all[begin]);
  return arguments;
}

int usable_cores() {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  return ::sched_getaffinity(0, sizeof(cores), &cores) == 0 ? CPU_COUNT(&cores) : 1;
}

// This process's variables with a rank's added.
std::vector<std::string> variables_of(int rank, int count, int port) {
  std::vector<std::string> mine = {fmt::format("RANK={}", rank),
                                   fmt::format("LOCAL_RANK={}", rank),
                                   fmt::format("WORLD_SIZE={}", count),
                                   fmt::format("LOCAL_WORLD_SIZE={}", count),
                                   "MASTER_ADDR=localhost",
                                   fmt::format("MASTER_PORT={}", port),
                                   "TORCHELASTIC_RUN_ID=longlora",
                                   "TORCHELASTIC_USE_AGENT_STORE=True",
                                   "TORCHELASTIC_RESTART_COUNT=0"};
  if (::getenv("OMP_NUM_THREADS") == nullptr) {
    mine.push_back(fmt::format("OMP_NUM_THREADS={}", std::max(1, usable_cores() / count)));
  }
  const size_t own = mine.size();
  for (char** variable = environ; *variable != nullptr; ++variable) {
    const std::string text = *variable, name = text.substr(0, text.find('=') + 1);
    if (std::none_of(mine.begin(), mine.begin() + static_cast<ptrdiff_t>(own),
                     [&](const std::string& one) { return one.starts_with(name); }))
      mine.push_back(text);
  }
  return mine;
}

// A rank's process. Rank 0 writes to the terminal itself (it draws the progress line); the messages of the others are read
// from a pipe and passed on line by line.
struct Rank {
  int number = 0;
  pid_t pid = -1;
  int pipe = -1;
  std::string unfinished;     // of a line
  std::optional<int> status;  // of waitpid, once it has ended
  bool killed = false;        // by the supervisor

  [[nodiscard]] bool running() const { return !status; }
  [[nodiscard]] Exit code() const {
    return WIFEXITED(*status) ? static_cast<Exit>(WEXITSTATUS(*status)) : Exit::failed;
  }

  // What is there to read, without waiting. `show`: whether it is passed on.
  void read(bool show) {
    std::array<char, 4096> part{};
    while (pipe >= 0) {
      const ssize_t size = ::read(pipe, part.data(), part.size());
      if (size > 0) {
        unfinished.append(part.data(), static_cast<size_t>(size));
      } else if (size == 0 || (errno != EAGAIN && errno != EINTR)) {
        ::close(std::exchange(pipe, -1));
        if (!unfinished.empty()) unfinished += '\n';
      } else {
        break;
      }
    }
    const std::string prefix = fmt::format("[rank {}] ", number);
    for (size_t end = unfinished.find('\n'); end != unfinished.npos; end = unfinished.find('\n')) {
      const std::string line = unfinished.substr(0, end + 1);
      if (show) fmt::print(stderr, "{}{}", line.starts_with(prefix) ? "" : prefix, line);
      unfinished.erase(0, end + 1);
    }
  }
};

Rank start(int number, int count, int port, std::vector<std::string>& arguments) {
  Rank rank;
  rank.number = number;
  std::array<int, 2> ends = {-1, -1};
  if (number > 0 && ::pipe2(ends.data(), O_CLOEXEC) != 0) fail("cannot make a pipe: {}", std::strerror(errno));
  std::vector<std::string> variables = variables_of(number, count, port);
  const std::vector<char*> argv = pointers(arguments), envp = pointers(variables);
  const pid_t parent = ::getpid();
  rank.pid = ::fork();
  if (rank.pid < 0) fail("cannot start rank {}: {}", number, std::strerror(errno));
  if (rank.pid == 0) {                   // between fork and exec only what a signal handler may do
    ::setpgid(0, 0);                     // Ctrl-C comes from here, once
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);  // no rank outlives the supervisor
    if (::getppid() != parent) ::_exit(1);
    if (ends[1] >= 0) ::dup2(ends[1], STDERR_FILENO);
    ::execve("/proc/self/exe", argv.data(), envp.data());
    ::_exit(127);
  }
  if (ends[1] >= 0) ::close(ends[1]);
  rank.pipe = ends[0];
  if (rank.pipe >= 0) ::fcntl(rank.pipe, F_SETFL, O_NONBLOCK);
  return rank;
}

std::string how_it_ended(const Rank& rank) {
  if (WIFEXITED(*rank.status)) return fmt::format("ended with exit code {}", WEXITSTATUS(*rank.status));
  const int number = WTERMSIG(*rank.status);
  return fmt::format("was killed by signal {} ({}{})", number, ::strsignal(number),
                     number == SIGKILL ? "; was the machine out of memory?" : "");
}

// The ranks and what happens to them; all are killed where the supervisor itself fails.
class Ranks {
 public:
  Ranks(int count, int port) {
    std::vector<std::string> arguments = own_arguments();
    for (int number = 0; number < count; ++number) all_.push_back(start(number, count, port, arguments));
  }
  ~Ranks() {
    kill_all();
    for (Rank& rank : all_) {
      if (rank.running()) ::waitpid(rank.pid, nullptr, 0);
      if (rank.pipe >= 0) ::close(rank.pipe);
    }
  }
  Ranks(const Ranks&) = delete;
  Ranks& operator=(const Ranks&) = delete;

  Exit wait() {
    while (std::any_of(all_.begin(), all_.end(), [](const Rank& rank) { return rank.running(); })) {
      std::vector<pollfd> pipes;
      for (const Rank& rank : all_) {
        if (rank.pipe >= 0) pipes.push_back({.fd = rank.pipe, .events = POLLIN, .revents = 0});
      }
      ::poll(pipes.data(), pipes.size(), 20);
      for (Rank& rank : all_) {
        rank.read(failed_ == nullptr);
        int status = 0;
        if (rank.running() && ::waitpid(rank.pid, &status, WNOHANG) == rank.pid) ended(rank, status);
      }
      // Only the first: what comes later this process notes, or ends with (core/base/signal.h), and then the ranks do too.
      if (passed_on_ == 0 && stop_requested()) {
        passed_on_ = stop_signal();
        signal_all(passed_on_);
      }
      if (failed_ != nullptr && Clock::now() > deadline_) kill_all();
    }
    if (failed_ == nullptr) return Exit::done;
    // Before the first step a rank may be reading its weights, and is killed here: nothing is lost, run again to go on.
    const bool stopped = std::all_of(all_.begin(), all_.end(), [&](const Rank& rank) { return was_stopped(rank); });
    if (stopped && WIFSIGNALED(*all_.front().status))  // rank 0 could not say it
      fmt::print(stderr, "stopped before the first step; run the same command again\n");
    return stopped ? Exit::interrupted : failed_->code() == Exit::interrupted ? Exit::failed : failed_->code();
  }

 private:
  void ended(Rank& rank, int status) {
    rank.status = status;
    if (failed_ != nullptr || status == 0) return;
    rank.read(true);
    failed_ = &rank;
    deadline_ = Clock::now() + kGrace;
    if (was_stopped(rank)) return;  // the others are saved too, and about to end
    if (all_.size() > 1) fmt::print(stderr, "rank {} {}; ending the others\n", rank.number, how_it_ended(rank));
    signal_all(SIGUSR2);
  }

  // As a signal that was passed on asked for. SIGKILL that is not from here is the kernel's, out of memory.
  [[nodiscard]] bool was_stopped(const Rank& rank) const {
    if (WIFEXITED(*rank.status)) return rank.code() == Exit::interrupted;
    const int number = WTERMSIG(*rank.status);
    return passed_on_ != 0 && (number == SIGTERM || number == passed_on_ || (number == SIGKILL && rank.killed));
  }

  void kill_all() {
    for (Rank& rank : all_) rank.killed = rank.killed || rank.running();
    signal_all(SIGKILL);
  }
  void signal_all(int number) {
    for (const Rank& rank : all_) {
      if (rank.running()) ::kill(rank.pid, number);
    }
  }

  std::vector<Rank> all_;
  const Rank* failed_ = nullptr;  // the first
  int passed_on_ = 0;             // the first signal
  Clock::time_point deadline_;
};

}  // namespace

Exit supervise(int count) {
  say_on_stop(nullptr);  // rank 0 says what it does
  const Store store = Store::host();
  return Ranks(count, store.port()).wait();
}

}  // namespace longlora::dist

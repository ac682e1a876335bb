#include "core/base/signal.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <ctime>
#include <initializer_list>
#include <string_view>

namespace longlora {

StopRequests::Reaction StopRequests::on(int number, int64_t milliseconds) {
  constexpr int64_t kApart = 1000;
  if (number == SIGINT) {
    int64_t before = kNever;
    if (!interrupted_.compare_exchange_strong(before, milliseconds))
      return milliseconds - before >= kApart ? Reaction::quit : Reaction::ignore;
  }
  int none = 0;
  return first_.compare_exchange_strong(none, number) ? Reaction::stop : Reaction::note;
}

void StopRequests::clear() {
  interrupted_ = kNever;
  first_ = 0;
}

namespace {

constexpr const char* kFinishing = "finishing up";

// The program's global state: a signal handler can reach nothing else.
struct State {
  StopRequests requests;
  std::atomic<const char*> text = kFinishing;
  std::atomic<int64_t> number = 0;
  std::atomic<bool> quiet = false, others_failed = false;
};
State state;

// A line for standard error, made and written with what a signal handler may call.
class Line {
 public:
  Line() {
    if (::isatty(STDERR_FILENO) != 0) add("\r\x1b[K");  // the progress line's place
  }
  void add(std::string_view text) {
    const size_t n = std::min(text.size(), kRoom - size_);
    std::memcpy(text_ + size_, text.data(), n);
    size_ += n;
  }
  void add(int64_t number) {
    char digits[20];
    size_t n = 0;
    for (; number > 0 || n == 0; number /= 10) digits[n++] = static_cast<char>('0' + number % 10);
    while (n > 0) add({&digits[--n], 1});
  }
  void write() {
    text_[size_++] = '\n';
    pollfd error{STDERR_FILENO, POLLOUT, 0};
    if (::poll(&error, 1, 0) != 1) return;  // a reader that stands still must not hold up the saving
    for (size_t done = 0; done < size_;) {
      const ssize_t n = ::write(STDERR_FILENO, text_ + done, size_ - done);
      if (n <= 0) return;
      done += static_cast<size_t>(n);
    }
  }

 private:
  static constexpr size_t kRoom = 400;
  char text_[kRoom + 1];  // NOLINT: filled as far as it is used
  size_t size_ = 0;
};

std::string_view name_of(int number) {
  return number == SIGINT ? "SIGINT" : number == SIGTERM ? "SIGTERM" : number == SIGUSR1 ? "SIGUSR1" : "SIGHUP";
}

constexpr const char* kOnceMore = " (Ctrl-C again, after a second, ends at once without saving)";

void say_first(int number, int rank) {
  const char* text = state.text;
  if (state.quiet || text == nullptr) return;
  Line line;
  line.add(name_of(number));
  if (rank >= 0) {
    line.add(" to rank ");
    line.add(rank);
  }
  line.add(": ");
  const std::string_view what = text;
  const size_t place = what.find("{}");
  line.add(what.substr(0, place));
  if (place != what.npos) {
    line.add(state.number);
    line.add(what.substr(place + 2));
  }
  if (number == SIGINT && rank < 0) line.add(kOnceMore);
  line.write();
}

void say_later(int number) {
  if (state.quiet) return;
  Line line;
  line.add(name_of(number));
  line.add(": noted, the program is stopping already");
  if (number == SIGINT) line.add(kOnceMore);
  line.write();
}

void handle(int number) {
  const int error = errno;
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  switch (state.requests.on(number, int64_t{now.tv_sec} * 1000 + now.tv_nsec / 1'000'000)) {
    case StopRequests::Reaction::stop:
      say_first(number, -1);
      break;
    case StopRequests::Reaction::note:
      say_later(number);
      break;
    case StopRequests::Reaction::ignore:
      break;
    case StopRequests::Reaction::quit:
      if (!state.quiet) {
        Line line;
        line.add("ended by a second Ctrl-C, without saving");
        line.write();
      }
      ::_exit(static_cast<int>(Exit::quit));
  }
  errno = error;
}

void install(int number, void (*handler)(int)) {
  struct sigaction before {};
  ::sigaction(number, nullptr, &before);
  if (before.sa_handler == SIG_IGN) return;  // by nohup
  struct sigaction action {};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;
  sigfillset(&action.sa_mask);
  ::sigaction(number, &action, nullptr);
}

}  // namespace

void install_signal_handlers() {
  std::signal(SIGXFSZ, SIG_IGN);  // a file beyond the limit is an error of the write, which cleans up
  for (const int number : {SIGINT, SIGTERM, SIGUSR1, SIGHUP}) install(number, handle);
  install(SIGUSR2, [](int) { state.others_failed = true; });
}

void ignore_closed_pipes() {
  std::signal(SIGPIPE, SIG_IGN);
}

bool stop_requested() {
  return stop_signal() != 0;
}
int stop_signal() {
  return state.requests.first();
}
void clear_stop() {
  state.requests.clear();
}
bool others_failed() {
  return state.others_failed;
}

void request_stop(int number, int rank) {
  if (stop_requested()) return;
  const int plain = number == SIGINT ? SIGTERM : number;  // the first Ctrl-C here is still to come
  if (state.requests.on(plain, 0) == StopRequests::Reaction::stop) say_first(number, rank);
}

void say_on_stop(const char* text, int64_t number) {
  state.number = number;
  state.text = text;
}
void say_nothing_on_stop() {
  state.quiet = true;
}

}  // namespace longlora

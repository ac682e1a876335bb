#include "core/base/signal.h"

#include <csignal>
#include <initializer_list>

namespace longlora {
namespace {

// The one piece of global state in the program: a signal handler can reach nothing else.
volatile std::sig_atomic_t received = 0;

void handle(int number) {
  if (received != 0 && number == SIGINT) {
    std::signal(SIGINT, SIG_DFL);
    std::raise(SIGINT);
  }
  received = number;
}

}  // namespace

void install_signal_handlers() {
  std::signal(SIGXFSZ, SIG_IGN);  // a file beyond the limit is an error of the write, which cleans up
  for (const int number : {SIGINT, SIGTERM, SIGUSR1, SIGHUP})
    if (std::signal(number, handle) == SIG_IGN) std::signal(number, SIG_IGN);  // by nohup
}

void ignore_closed_pipes() {
  std::signal(SIGPIPE, SIG_IGN);
}

bool stop_requested() {
  return received != 0;
}
int stop_signal() {
  return received;
}
void clear_stop() {
  received = 0;
}

}  // namespace longlora

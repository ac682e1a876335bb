// SIGINT, SIGTERM, SIGUSR1 and SIGHUP ask the program to stop. Their handler says so at once, however long the work under way
// takes, and raises a flag; the work looks at the flag where it can leave, saves, and ends with Exit::interrupted.
//
// What comes after the first of them does not disturb the saving: SIGTERM, SIGUSR1 and SIGHUP are only noted. A second SIGINT
// at least a second after the first ends the program at once with Exit::quit. Sooner, it is taken for the same one: terminals
// and launchers send it twice.
#pragma once
#include <atomic>
#include <cstdint>
#include <string>

#include "core/base/error.h"

namespace longlora {

void install_signal_handlers();
[[nodiscard]] bool stop_requested();
[[nodiscard]] int stop_signal();  // the number of the first one, 0 when none came
void clear_stop();                // forgets the signal: it was meant for an answer that has now ended

// The signal came to rank `rank` of this job: says so and raises the flag here too, unless it is raised.
void request_stop(int number, int rank);

// What is said of the first signal, after its name; `number` takes the place of "{}". `text` lives as long as the program; with
// null nothing is said.
void say_on_stop(const char* text, int64_t number = 0);
void say_nothing_on_stop();  // neither of the first signal nor of later ones: another process does

// `longlora --nproc` sends a rank SIGUSR2 when another one has failed; it ends this one soon.
[[nodiscard]] bool others_failed();

// Work was left because of a signal. Whatever the abandoned work had begun is discarded.
class Stopped : public Error {
 public:
  explicit Stopped(const std::string& message = "stopped; run the same command again")
      : Error(Exit::interrupted, message) {}
};

inline void leave_if_stopped() {
  if (stop_requested()) throw Stopped();
}

// For work that takes hours: a reader of its messages that ends (`| tee log`, `| head`) does not end it.
void ignore_closed_pipes();

// What the signals so far mean. A handler may call it, on any thread.
class StopRequests {
 public:
  enum class Reaction { stop, note, ignore, quit };
  [[nodiscard]] Reaction on(int number, int64_t milliseconds);  // the time, of a clock that does not go back
  [[nodiscard]] int first() const { return first_; }
  void clear();

 private:
  static constexpr int64_t kNever = -1;
  std::atomic<int> first_ = 0;
  std::atomic<int64_t> interrupted_ = kNever;  // when the first SIGINT came
};

}  // namespace longlora

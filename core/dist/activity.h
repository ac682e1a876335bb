// What a rank is doing, for messages about ranks that hang: written by its main thread and its groups, read by its watch.
#pragma once
#include <atomic>
#include <chrono>
#include <cstdint>
#include <string>

namespace longlora::dist {

class Activity {
 public:
  using Clock = std::chrono::steady_clock;

  // `phase`: text that lives as long as the program.
  void enter(const char* phase) {
    phase_ = phase;
    since_ = Clock::now();
  }
  void enter_step(int64_t step) { step_ = step; }
  void begin_collective(const char* name, int64_t bytes) {
    ++collectives_;
    collective_ = name;
    bytes_ = bytes;
    since_ = Clock::now();
  }
  void begin_wait() {
    waiting_ = true;
    since_ = Clock::now();
  }
  void end_wait() {
    waiting_ = false;
    since_ = Clock::now();
  }

  [[nodiscard]] bool waiting() const { return waiting_; }
  [[nodiscard]] std::chrono::duration<double> idle() const { return Clock::now() - since_.load(); }
  // "step 12, gradients, in all_reduce 345 (1.2 MiB) for 4 s"; the last finished operation where it waits in none.
  [[nodiscard]] std::string describe() const;

 private:
  std::atomic<int64_t> step_ = 0, collectives_ = 0, bytes_ = 0;
  std::atomic<const char*> phase_ = "start", collective_ = "";
  std::atomic<bool> waiting_ = false;
  std::atomic<Clock::time_point> since_ = Clock::now();
};

}  // namespace longlora::dist

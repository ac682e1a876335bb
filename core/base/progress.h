// Progress of anything long: one rewritten line on a terminal, a plain line every few seconds elsewhere
// (batch jobs).
#pragma once
#include <chrono>
#include <cstdint>
#include <string>

namespace longlora {

class Progress {
 public:
  // `total` in `unit`s, 0 when unknown. `every_s`: the pace of plain lines when standard error is no
  // terminal.
  Progress(std::string what, int64_t total, std::string unit, double every_s = 5.0);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // `done` so far; `note` is shown after the rate and the time left. Cheap: draws at most ten times a second.
  void update(int64_t done, const std::string& note = "");
  // Clears the line, so that a log line can be written; the next update draws it again.
  void clear();
  // Last state as a plain line.
  void finish(const std::string& note = "");

 private:
  [[nodiscard]] std::string line(int64_t done, const std::string& note) const;
  using Clock = std::chrono::steady_clock;
  std::string what_, unit_;
  int64_t total_, done_ = 0, first_ = -1;
  double every_s_;
  bool terminal_, drawn_ = false, finished_ = false;
  Clock::time_point start_, last_;
};

// 0:07, 12:31, 3:07:22
[[nodiscard]] std::string format_duration(double seconds);
// 950, 12.3k, 4.56M, 7.89G
[[nodiscard]] std::string format_count(double value);
// 512 B, 3.4 KiB, 1.2 GiB
[[nodiscard]] std::string format_bytes(double bytes);

}  // namespace longlora

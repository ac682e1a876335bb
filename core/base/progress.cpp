#include "core/base/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <utility>

namespace longlora {
namespace {

// Unlike fmt::print it does not throw: a full disk under the log must not end the work.
void put(const std::string& text) {
  (void)std::fputs(text.c_str(), stderr);
  (void)std::fflush(stderr);
}

}  // namespace

Progress::Progress(std::string what, int64_t total, std::string unit, double every_s)
    : what_(std::move(what)),
      unit_(std::move(unit)),
      total_(total),
      every_s_(every_s),
      terminal_(::isatty(STDERR_FILENO) != 0),
      start_(Clock::now()),
      last_(start_) {}

Progress::~Progress() {
  clear();
}

void Progress::update(int64_t done, const std::string& note) {
  const auto now = Clock::now();
  done_ = done;
  if (first_ < 0) first_ = done;
  const double since = std::chrono::duration<double>(now - last_).count();
  if (drawn_ || !terminal_ ? since < (terminal_ ? 0.1 : every_s_) : false) return;
  last_ = now;
  const std::string text = line(done, note);
  if (terminal_) {
    put("\r\x1b[K" + text);
    drawn_ = true;
  } else {
    put(text + "\n");
  }
}

void Progress::clear() {
  if (!drawn_) return;
  put("\r\x1b[K");
  drawn_ = false;
}

void Progress::finish(const std::string& note) {
  if (std::exchange(finished_, true)) return;
  clear();
  put(line(done_, note) + "\n");
}

std::string Progress::line(int64_t done, const std::string& note) const {
  const double elapsed = std::chrono::duration<double>(Clock::now() - start_).count();
  const double rate = elapsed > 0 ? static_cast<double>(done - std::max<int64_t>(first_, 0)) / elapsed : 0;
  std::string text = total_ > 0 ? fmt::format("{} {}/{} {}", what_, format_count(static_cast<double>(done)),
                                              format_count(static_cast<double>(total_)), unit_)
                                : fmt::format("{} {} {}", what_, format_count(static_cast<double>(done)), unit_);
  if (!note.empty()) text += "  " + note;
  text += "  " + format_duration(elapsed);
  if (total_ > done && rate > 0) text += "  left " + format_duration(static_cast<double>(total_ - done) / rate);
  return text;
}

std::string format_duration(double seconds) {
  const auto s = static_cast<int64_t>(seconds + 0.5);
  if (s >= 3600) return fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
  return fmt::format("{}:{:02}", s / 60, s % 60);
}

std::string format_count(double value) {
  if (value >= 1e9) return fmt::format("{:.2f}G", value / 1e9);
  if (value >= 1e6) return fmt::format("{:.2f}M", value / 1e6);
  if (value >= 1e4) return fmt::format("{:.1f}k", value / 1e3);
  return fmt::format("{:.0f}", value);
}

std::string format_bytes(double bytes) {
  if (bytes >= 0x1p30) return fmt::format("{:.2f} GiB", bytes / 0x1p30);
  if (bytes >= 0x1p20) return fmt::format("{:.1f} MiB", bytes / 0x1p20);
  if (bytes >= 0x1p10) return fmt::format("{:.1f} KiB", bytes / 0x1p10);
  return fmt::format("{:.0f} B", bytes);
}

}  // namespace longlora

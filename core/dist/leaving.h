// Where the ranks of a job leave a step that is given up: all at the same point of it, so that none waits in an operation that
// another has left out.
//
// A step has points that every rank passes in the same order. When one rank is to stop, each one's watch (a thread) holds its
// main thread at the next point and tells which one it passed last. The first point after the furthest of these is where all
// leave: none has passed it, and up to it all go on as ever, so that no operation stays without a partner. Nothing of this costs
// anything before a signal comes.
#pragma once
#include <chrono>
#include <compare>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <optional>
#include <span>
#include <string>

namespace longlora::dist {

// Points are ordered. A rank need not have all of them, if only no operation between ranks lies among those that it lacks.
struct Point {
  int64_t step = -1;  // from 0
  int64_t part = 0;   // of the step: a micro-batch, a row of the validation
  int64_t place = 0;  // in the part
  auto operator<=>(const Point&) const = default;
};
[[nodiscard]] std::string to_text(const Point& point);
[[nodiscard]] Point point_of(const std::string& text);

// Where ranks that last passed these leave.
[[nodiscard]] Point leave_after(std::span<const Point> passed);

// One rank's part in it.
class Leaving {
 public:
  // The main thread is at this point. True where all leave here. Waits for what is agreed on when the watch holds it: exit 1
  // with `give_up`'s reason, or when nothing is agreed on for that long.
  [[nodiscard]] bool leave_at(const Point& point, std::chrono::milliseconds patience);

  // The watch's: from now on no further point is passed; the last one that was.
  [[nodiscard]] Point hold();
  void agree_on(const Point& point);
  void give_up(const std::string& reason);

 private:
  std::mutex lock_;
  std::condition_variable changed_;
  Point passed_;
  bool held_ = false;
  std::optional<Point> leave_;
  std::string broken_;
};

}  // namespace longlora::dist

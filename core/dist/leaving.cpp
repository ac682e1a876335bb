#include "core/dist/leaving.h"

#include <algorithm>
#include <cstdio>

#include "core/base/error.h"

namespace longlora::dist {

std::string to_text(const Point& point) {
  return fmt::format("{} {} {}", point.step, point.part, point.place);
}

Point point_of(const std::string& text) {
  long long step = 0, part = 0, place = 0;
  if (std::sscanf(text.c_str(), "%lld %lld %lld", &step, &part, &place) != 3)
    fail("a rank tells '{}' for the point it has come to", text);
  return {step, part, place};
}

Point leave_after(std::span<const Point> passed) {
  Point point = *std::max_element(passed.begin(), passed.end());
  ++point.place;
  return point;
}

bool Leaving::leave_at(const Point& point, std::chrono::milliseconds patience) {
  std::unique_lock hold(lock_);
  if (held_) {
    const bool known = changed_.wait_for(hold, patience, [this] { return leave_ || !broken_.empty(); });
    if (!known) broken_ = "a rank does not answer";
    if (!leave_) fail("the ranks cannot agree where to stop: {}; the last checkpoint is untouched", broken_);
    if (point >= *leave_) return true;
  }
  passed_ = point;
  return false;
}

Point Leaving::hold() {
  const std::lock_guard hold(lock_);
  held_ = true;
  return passed_;
}

void Leaving::agree_on(const Point& point) {
  {
    const std::lock_guard hold(lock_);
    leave_ = point;
  }
  changed_.notify_all();
}

void Leaving::give_up(const std::string& reason) {
  {
    const std::lock_guard hold(lock_);
    broken_ = reason;
  }
  changed_.notify_all();
}

}  // namespace longlora::dist

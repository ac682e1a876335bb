// Curves as a picture: an inline SVG that takes its colours from the page (core/eval/report.cpp), light or dark.
#pragma once
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace longlora::eval {

struct Series {
  std::string name;
  size_t colour = 0;                              // var(--c0), --c1, ..., kChartColours of them
  std::vector<std::pair<double, double>> points;  // by x; what is not finite is left out
};
inline constexpr size_t kChartColours = 8;

struct ChartOptions {
  std::string title, x_label;
  bool log_x = false, log_y = false;  // values of 0 and less are left out then
  bool marks = false;                 // a dot a point, with its numbers as a tooltip
  bool running_mean = false;          // the points pale, over them the mean of a twentieth of them around each
  bool from_zero = false;             // the y axis begins at 0
};

// "" when there is nothing to draw. Of long series every pixel's points are drawn as their mean.
[[nodiscard]] std::string line_chart(const ChartOptions& options, std::span<const Series> series);

// Round values between low and high, at most `most` of them: 1, 2 or 5 times a power of ten, on a logarithmic axis the
// powers themselves where they are enough.
[[nodiscard]] std::vector<double> ticks(double low, double high, bool logarithmic, size_t most);

// 950, 12k, 1.5M; below 1 as %g
[[nodiscard]] std::string tick_label(double value);

}  // namespace longlora::eval

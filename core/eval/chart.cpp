#include "core/eval/chart.h"

#include <fmt/format.h>
#include <algorithm>
#include <cmath>
#include <limits>

#include "core/base/markup.h"

namespace longlora::eval {
namespace {

using Points = std::vector<std::pair<double, double>>;

constexpr int kWidth = 460, kHeight = 260, kLeft = 58, kRight = 12, kTop = 38, kBottom = 44;
constexpr size_t kMostPoints = kWidth - kLeft - kRight;

// One axis: values to pixels.
struct Axis {
  double low, high, first, last;  // values, and the pixels of the two
  bool logarithmic;
  [[nodiscard]] double operator()(double value) const {
    const double share = logarithmic ? std::log(value / low) / std::log(high / low) : (value - low) / (high - low);
    return first + share * (last - first);
  }
};

Points drawable(const Series& series, const ChartOptions& options) {
  Points points;
  for (const auto& [x, y] : series.points) {
    const bool bad = !std::isfinite(x) || !std::isfinite(y) || (options.log_x && x <= 0) || (options.log_y && y <= 0);
    if (!bad) points.emplace_back(x, y);
  }
  return points;
}

// Means of as many points in a row as it takes to have no more than kMostPoints.
Points thinned(const Points& points) {
  const size_t each = (points.size() + kMostPoints - 1) / kMostPoints;
  if (each < 2) return points;
  Points out;
  for (size_t i = 0; i < points.size(); i += each) {
    const size_t n = std::min(each, points.size() - i);
    double x = 0, y = 0;
    for (size_t k = i; k < i + n; ++k) x += points[k].first, y += points[k].second;
    out.emplace_back(x / static_cast<double>(n), y / static_cast<double>(n));
  }
  return out;
}

Points running_mean(const Points& points) {
  const auto size = static_cast<int64_t>(points.size()), reach = std::max<int64_t>(1, size / 40);
  std::vector<double> sums = {0};
  for (const auto& [x, y] : points) sums.push_back(sums.back() + y);
  Points out;
  for (int64_t i = 0; i < size; ++i) {
    const auto low = static_cast<size_t>(std::max<int64_t>(0, i - reach));
    const auto high = static_cast<size_t>(std::min(size, i + reach + 1));
    out.emplace_back(points[static_cast<size_t>(i)].first, (sums[high] - sums[low]) / static_cast<double>(high - low));
  }
  return out;
}

std::pair<double, double> range(std::span<const Points> all, double std::pair<double, double>::*part) {
  double low = std::numeric_limits<double>::infinity(), high = -low;
  for (const Points& points : all) {
    for (const auto& point : points) {
      low = std::min(low, point.*part);
      high = std::max(high, point.*part);
    }
  }
  return {low, high};
}

// With a little room at both ends; never empty.
Axis y_axis(std::pair<double, double> range, const ChartOptions& options) {
  auto [low, high] = range;
  if (options.log_y) {
    const double room = std::max(1.02, std::pow(high / low, 0.06));
    return {low / room, high * room, kHeight - kBottom, kTop, true};
  }
  if (options.from_zero) low = std::min(low, 0.0);
  // Values that differ in their last digits only are drawn as alike: ticks between them could not be told apart.
  const bool alike = !(high - low > 1e-9 * std::max(std::abs(low), std::abs(high)));
  const double room = alike ? std::max(1e-12, 0.1 * std::abs(high)) : 0.06 * (high - low);
  return {options.from_zero && low == 0 ? 0 : low - room, high + room, kHeight - kBottom, kTop, false};
}

Axis x_axis(std::pair<double, double> range, bool logarithmic) {
  auto [low, high] = range;
  if (!(high > low)) {
    low = logarithmic ? low / 2 : low - 1;
    high = logarithmic ? high * 2 : high + 1;
  }
  return {low, high, kLeft + 8, kWidth - kRight - 8, logarithmic};
}

std::string polyline(const Points& points, const Axis& x, const Axis& y, size_t colour, const char* kind) {
  std::string text = fmt::format("<polyline class=\"curve {}\" stroke=\"var(--c{})\" points=\"", kind, colour);
  for (const auto& [a, b] : points) text += fmt::format("{:.1f},{:.1f} ", x(a), y(b));
  text.back() = '"';
  return text + "/>\n";
}

}  // namespace

std::vector<double> ticks(double low, double high, bool logarithmic, size_t most) {
  std::vector<double> found;
  if (logarithmic) {
    for (const std::vector<double>& parts :
         {std::vector<double>{1, 2, 3, 4, 5, 6, 7, 8, 9}, {1, 2, 3, 5}, {1, 2, 5}, {1, 3}, {1}}) {
      found.clear();
      for (double power = std::pow(10, std::floor(std::log10(low))); power <= high; power *= 10)
        for (const double part : parts)
          if (part * power >= low && part * power <= high) found.push_back(part * power);
      if (found.size() <= most) break;
    }
    if (found.size() >= 2 && found.size() <= most) return found;
  }
  double step = std::pow(10, std::floor(std::log10((high - low) / static_cast<double>(most))));
  for (const double factor : {1.0, 2.0, 5.0, 10.0}) {
    found.clear();
    const double each = step * factor;
    for (double at = std::ceil(low / each); at * each <= high * (1 + 1e-12); ++at) found.push_back(at * each);
    if (found.size() <= most) break;
  }
  return found;
}

std::string tick_label(double value) {
  const double size = std::abs(value);
  if (size >= 1e6) return fmt::format("{:.4g}M", value / 1e6);
  if (size >= 1e4) return fmt::format("{:.4g}k", value / 1e3);
  return fmt::format("{:.4g}", size < 1e-15 ? 0 : value);
}

std::string line_chart(const ChartOptions& options, std::span<const Series> series) {
  std::vector<Points> all;
  size_t points = 0;
  for (const Series& one : series) points += all.emplace_back(drawable(one, options)).size();
  if (points == 0) return "";
  const Axis x = x_axis(range(all, &Points::value_type::first), options.log_x);
  const Axis y = y_axis(range(all, &Points::value_type::second), options);
  const std::string title = escape_markup(options.title);
  std::string svg = fmt::format(
      "<svg class=\"chart\" viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">\n<text class=\"name\" x=\"{}\" "
      "y=\"20\">{}</text>\n",
      kWidth, kHeight, title, 8, title);
  for (const double tick : ticks(y.low, y.high, y.logarithmic, 6)) {
    svg += fmt::format(
        "<line class=\"grid\" x1=\"{0}\" x2=\"{1}\" y1=\"{2:.1f}\" y2=\"{2:.1f}\"/><text class=\"y\" x=\"{3}\" "
        "y=\"{4:.1f}\">{5}</text>\n",
        kLeft, kWidth - kRight, y(tick), kLeft - 8, y(tick) + 4, tick_label(tick));
  }
  std::vector<double> x_ticks = ticks(x.low, x.high, false, 7);
  if (options.log_x) {  // lengths: at the points themselves
    x_ticks.clear();
    for (const Points& some : all)
      for (const auto& point : some) x_ticks.push_back(point.first);
    std::sort(x_ticks.begin(), x_ticks.end());
    x_ticks.erase(std::unique(x_ticks.begin(), x_ticks.end()), x_ticks.end());
  }
  double free_from = 0;
  for (const double tick : x_ticks) {
    if (x(tick) < free_from) continue;
    free_from = x(tick) + 46;  // labels must not run into each other
    const std::string label = options.log_x ? fmt::format("{}", tick) : tick_label(tick);
    svg += fmt::format(
        "<line class=\"grid\" x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"{1}\" y2=\"{2}\"/><text class=\"x\" x=\"{0:.1f}\" "
        "y=\"{3}\">{4}</text>\n",
        x(tick), kHeight - kBottom, kHeight - kBottom + 5, kHeight - kBottom + 20, label);
  }
  svg += fmt::format("<text class=\"x\" x=\"{}\" y=\"{}\">{}</text>\n", (kLeft + kWidth - kRight) / 2, kHeight - 6,
                     escape_markup(options.x_label));
  for (size_t i = 0; i < series.size(); ++i) {
    if (all[i].empty()) continue;
    const size_t colour = series[i].colour % kChartColours;
    const bool both = options.running_mean && all[i].size() >= 40;
    svg += polyline(thinned(all[i]), x, y, colour, both ? "pale" : "plain");
    if (both) svg += polyline(thinned(running_mean(all[i])), x, y, colour, "plain");
    const bool lone = all[i].size() == 1;
    for (const auto& [a, b] : all[i]) {
      if (!lone && (!options.marks || all[i].size() > 100)) break;
      svg += fmt::format(
          "<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3.5\" fill=\"var(--c{})\"><title>{} at {}: "
          "{:.5g}</title></circle>\n",
          x(a), y(b), colour, escape_markup(series[i].name), tick_label(a), b);
    }
  }
  return svg + "</svg>\n";
}

}  // namespace longlora::eval

#include "core/eval/report.h"

#include <fmt/format.h>
#include <algorithm>
#include <cmath>
#include <set>

#include "core/base/markup.h"
#include "core/base/progress.h"
#include "core/base/version.h"
#include "core/eval/chart.h"
#include "core/eval/heatmap.h"

namespace longlora::eval {
namespace {

using Points = std::vector<std::pair<double, double>>;

// Colours of curves: told apart by lightness as well as by hue.
constexpr const char* kStyle = R"(
:root { color-scheme:light dark; --page:#fbfbfa; --panel:#fff; --ink:#1c2024; --soft:#5d656e; --line:#dfe2e6; --code:#f3f4f6;
  --c0:#1f6fd0; --c1:#d9531e; --c2:#1a9a7b; --c3:#a04fc4; --c4:#b8860b; --c5:#7b838c; --c6:#c2255c; --c7:#0b7285 }
@media (prefers-color-scheme:dark) { :root { --page:#14171a; --panel:#1b1f23; --ink:#e7eaee; --soft:#9aa4af; --line:#31373e; --code:#22272c;
  --c0:#5aa5ff; --c1:#ff8552; --c2:#3cc7a3; --c3:#c39be6; --c4:#e0b13c; --c5:#98a1ab; --c6:#f06595; --c7:#4dc4d6 } }
* { box-sizing:border-box }
body { margin:0; background:var(--page); color:var(--ink); font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif }
main { max-width:1320px; margin:0 auto; padding:28px 20px 48px }
h1 { font-size:24px; line-height:1.25; margin:0 0 4px; overflow-wrap:anywhere } h2 { font-size:17px; margin:30px 0 10px } p { margin:4px 0 }
.soft { color:var(--soft) } .panel { background:var(--panel); border:1px solid var(--line); border-radius:10px; padding:12px 14px; min-width:0 }
.charts { display:grid; grid-template-columns:repeat(auto-fit,minmax(min(100%,380px),1fr)); gap:12px; margin-top:12px } .charts.two { grid-template-columns:repeat(auto-fit,minmax(min(100%,520px),1fr)) }
@media (min-width:880px) { .wide { grid-column:span 2 } } .scroll { overflow-x:auto }
svg { display:block; max-width:100%; height:auto } svg.chart { width:100% }
.chart text { font:13px system-ui,-apple-system,"Segoe UI",Roboto,sans-serif; fill:var(--soft) }
.chart text.name { font-weight:600; font-size:15px; fill:var(--ink) } .chart text.y { text-anchor:end } .chart text.x { text-anchor:middle }
.chart .grid { stroke:var(--line); stroke-width:1 } .chart .curve { fill:none; stroke-width:2; stroke-linejoin:round; stroke-linecap:round }
.chart .pale { stroke-width:1.2; opacity:.3 }
table { border-collapse:collapse; font-size:14px; font-variant-numeric:tabular-nums }
th, td { padding:5px 14px 5px 0; text-align:right; border-bottom:1px solid var(--line); white-space:nowrap }
th:first-child, td:first-child { text-align:left } tr:last-child td { border-bottom:0 } thead th { color:var(--soft); font-weight:500 }
i.dot { display:inline-block; width:10px; height:10px; border-radius:50%; margin-right:8px }
details { margin:8px 0 } summary { cursor:pointer }
pre { background:var(--code); border-radius:8px; padding:12px 14px; overflow-x:auto; font:12.5px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace }
)";

std::string dot(size_t colour) {
  return fmt::format("<i class=\"dot\" style=\"background:var(--c{})\"></i>", colour % kChartColours);
}

// The first cell of a row may hold markup of our own, so all cells come escaped.
std::string table_of(const std::vector<std::string>& head, const std::vector<std::vector<std::string>>& rows) {
  std::string text = "<div class=\"scroll\"><table><thead><tr>";
  for (const std::string& cell : head) text += "<th>" + cell + "</th>";
  text += "</tr></thead><tbody>\n";
  for (const auto& row : rows) {
    text += "<tr>";
    for (const std::string& cell : row) text += "<td>" + cell + "</td>";
    text += "</tr>\n";
  }
  return text + "</tbody></table></div>\n";
}

const Points& curve(const RunLog& run, const char* key) {
  static const Points none;
  const auto found = run.curves.find(key);
  return found == run.curves.end() ? none : found->second;
}

std::string number(double value, const char* format = "{:.4f}") {
  return std::isfinite(value) ? fmt::format(fmt::runtime(format), value) : "-";
}

double median(const Points& points) {
  std::vector<double> values;
  for (const auto& [step, value] : points)
    if (std::isfinite(value)) values.push_back(value);
  if (values.empty()) return std::nan("");
  std::nth_element(values.begin(), values.begin() + static_cast<ptrdiff_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

std::string summary(const std::vector<RunLog>& runs) {
  std::vector<std::vector<std::string>> rows;
  for (size_t i = 0; i < runs.size(); ++i) {
    const Points &loss = curve(runs[i], "loss"), &valid = curve(runs[i], "valid_loss"),
                 &tokens = curve(runs[i], "tokens");
    const auto best =
        std::min_element(valid.begin(), valid.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
    rows.push_back({dot(i) + escape_markup(runs[i].name), loss.empty() ? "-" : number(loss.back().first, "{:.0f}"),
                    tokens.empty() ? "-" : format_count(tokens.back().second),
                    loss.empty() ? "-" : number(loss.front().second), loss.empty() ? "-" : number(loss.back().second),
                    valid.empty() ? "-" : number(valid.front().second),
                    valid.empty() ? "-" : number(valid.back().second),
                    valid.empty() ? "-" : fmt::format("{} at {:.0f}", number(best->second), best->first),
                    number(median(curve(runs[i], "tokens_per_s")), "{:.0f}")});
  }
  return table_of({"run", "steps", "tokens", "first loss", "last loss", "first validation", "last validation",
                   "best validation", "tokens/s (median)"},
                  rows);
}

std::string curves(const std::vector<RunLog>& runs) {
  const struct {
    const char* key;
    ChartOptions options;
  } charts[] = {
      {"loss", {.title = "Loss", .x_label = "step", .running_mean = true}},
      {"valid_loss", {.title = "Validation loss", .x_label = "step", .marks = true}},
      {"lr", {.title = "Learning rate", .x_label = "step", .from_zero = true}},
      {"grad_norm", {.title = "Gradient norm", .x_label = "step", .log_y = true, .running_mean = true}},
      {"tokens_per_s", {.title = "Tokens per second", .x_label = "step", .running_mean = true, .from_zero = true}},
  };
  std::string text;
  for (const auto& [key, options] : charts) {
    std::vector<Series> series;
    for (size_t i = 0; i < runs.size(); ++i)
      series.push_back({.name = runs[i].name, .colour = i, .points = curve(runs[i], key)});
    const std::string svg = line_chart(options, series);
    if (!svg.empty()) text += "<div class=\"panel\">" + svg + "</div>\n";
  }
  return "<div class=\"charts\">\n" + text + "</div>\n";
}

std::string perplexities(const std::vector<PerplexityFile>& files) {
  std::vector<Series> series;
  std::set<int64_t> contexts;
  for (const PerplexityFile& file : files) {
    std::set<std::string> data;
    for (const PerplexityLine& line : file.lines) {
      contexts.insert(line.context);
      if (!data.insert(line.data).second) continue;
      Series one{.name = file.name + ", " + line.data, .colour = series.size(), .points = {}};
      for (const PerplexityLine& other : file.lines)
        if (other.data == line.data) one.points.emplace_back(static_cast<double>(other.context), other.ppl);
      std::sort(one.points.begin(), one.points.end());
      series.push_back(std::move(one));
    }
  }
  std::vector<std::string> head = {"perplexity at"};
  for (const int64_t context : contexts) head.push_back(fmt::format("{}", context));
  std::vector<std::vector<std::string>> rows;
  for (const Series& one : series) {
    rows.push_back({dot(one.colour) + escape_markup(one.name)});
    for (const int64_t context : contexts) {
      const auto found = std::find_if(one.points.begin(), one.points.end(),
                                      [&](const auto& point) { return point.first == static_cast<double>(context); });
      rows.back().push_back(found == one.points.end() ? "" : number(found->second));
    }
  }
  const ChartOptions options{
      .title = "Perplexity", .x_label = "context in tokens", .log_x = true, .log_y = true, .marks = true};
  return "<h2>Perplexity</h2>\n<div class=\"charts\"><div class=\"panel\">" + line_chart(options, series) +
         "</div>\n<div class=\"panel wide\">" + table_of(head, rows) + "</div></div>\n";
}

std::string grids(const std::vector<GridFile>& files) {
  std::string text = "<h2>Retrieval</h2>\n<div class=\"charts two\">\n";
  for (const GridFile& file : files) {
    const GridTable& table = file.table;
    text += "<div class=\"panel\">" +
            heatmap_svg(table, fmt::format("{}: {}", file.task, file.model), "mean score; " + file.name);
    std::vector<std::string> head = {"tokens"}, score = {"score"}, forced = {"teacher-forced"}, cells = {"prompts"};
    for (size_t c = 0; c < table.lengths.size(); ++c) {
      head.push_back(fmt::format("{}", table.lengths[c]));
      score.push_back(number(table.mean_score[c], "{:.3f}"));
      forced.push_back(number(table.mean_forced[c], "{:.3f}"));
      cells.push_back(fmt::format("{}", table.cells[c]));
    }
    text += table_of(head, {score, forced, cells}) + "</div>\n";
  }
  return text + "</div>\n";
}

// "optimizer.lr" -> the value as JSON.
void flatten(const nlohmann::ordered_json& json, const std::string& path,
             std::vector<std::pair<std::string, std::string>>& into) {
  for (const auto& [key, value] : json.items()) {
    const std::string whole = path.empty() ? key : path + "." + key;
    value.is_object() ? flatten(value, whole, into) : void(into.emplace_back(whole, value.dump()));
  }
}

std::string recipes(const std::vector<RunLog>& runs) {
  std::string text;
  std::vector<std::string> head = {"key"}, keys;
  std::vector<std::map<std::string, std::string>> values;
  for (const RunLog& run : runs) {
    if (!run.recipe.is_object()) continue;
    text += fmt::format("<details><summary>Recipe of {}, as resolved</summary><pre>{}</pre></details>\n",
                        escape_markup(run.name), escape_markup(run.recipe.dump(2)));
    std::vector<std::pair<std::string, std::string>> flat;
    flatten(run.recipe, "", flat);
    for (const auto& [key, value] : flat)
      if (std::find(keys.begin(), keys.end(), key) == keys.end()) keys.push_back(key);
    head.push_back(escape_markup(run.name));
    values.emplace_back(flat.begin(), flat.end());
  }
  if (text.empty()) return "";
  std::vector<std::vector<std::string>> rows;
  for (const std::string& key : keys) {
    std::vector<std::string> row = {escape_markup(key)};
    std::set<std::string> different;
    for (auto& one : values) {
      row.push_back(escape_markup(one[key]));
      different.insert(one[key]);
    }
    if (different.size() > 1) rows.push_back(std::move(row));
  }
  return "<h2>Recipes</h2>\n" + (rows.empty() ? "" : "<div class=\"panel\">" + table_of(head, rows) + "</div>\n") +
         text;
}

}  // namespace

std::string report_page(const ReportInput& input) {
  std::string names;
  for (const RunLog& run : input.runs) names += (names.empty() ? "" : ", ") + escape_markup(run.name);
  if (names.empty()) names = "evaluations";
  std::string body;
  if (!input.runs.empty()) {
    body += "<h2>Training</h2>\n<div class=\"panel\">" + summary(input.runs) + "</div>\n" + curves(input.runs);
  }
  if (!input.perplexities.empty()) body += perplexities(input.perplexities);
  if (!input.grids.empty()) body += grids(input.grids);
  body += recipes(input.runs);
  return fmt::format(
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
      "content=\"width=device-width, initial-scale=1\">\n<title>longlora: {0}</title><style>{1}</style></head>\n"
      "<body><main>\n<h1>{0}</h1>\n<p class=\"soft\">{2}</p>\n{3}</main></body></html>\n",
      names, kStyle, escape_markup(version_line()), body);
}

}  // namespace longlora::eval

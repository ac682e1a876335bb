// The report's page: its numbers are those of the files, its curves stand where the axes say, names cannot break it.
#include "core/eval/report.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <regex>

#include "core/eval/chart.h"
#include "test/unit/data_support.h"

namespace longlora {
namespace {

using Points = std::vector<std::pair<double, double>>;

std::vector<std::smatch> all_matches(const std::string& text, const std::regex& pattern) {
  return {std::sregex_iterator(text.begin(), text.end(), pattern), std::sregex_iterator()};
}

// What a reader takes a chart's first curve for: pixels turned back by two labels of each axis.
Points read_off(const std::string& svg, bool log_x, bool log_y) {
  const auto axis = [&](const std::string& kind, int coordinate, bool logarithmic) {
    // <line class="grid" x1= x2= y1= y2=/><text class="y" ...>label</text>
    static const std::regex grid(
        "<line class=\"grid\" x1=\"([0-9.]+)\" x2=\"[0-9.]+\" y1=\"([0-9.]+)\" y2=\"[0-9.]+\"/>"
        "<text class=\"([xy])\"[^>]*>([^<]+)</text>");
    std::vector<std::pair<double, double>> labels;  // pixel, value
    for (const auto& match : all_matches(svg, grid)) {
      if (match[3] != kind) continue;
      std::string label = match[4];
      double factor = 1;
      if (label.back() == 'k') factor = 1e3;
      if (label.back() == 'M') factor = 1e6;
      const double value = std::stod(label) * factor;
      labels.emplace_back(std::stod(match[coordinate]), logarithmic ? std::log(value) : value);
    }
    REQUIRE(labels.size() >= 2);
    const auto [p0, v0] = labels.front();
    const auto [p1, v1] = labels.back();
    return [=, p0 = p0, v0 = v0, p1 = p1, v1 = v1](double pixel) {
      const double value = v0 + (pixel - p0) / (p1 - p0) * (v1 - v0);
      return logarithmic ? std::exp(value) : value;
    };
  };
  const auto x = axis("x", 1, log_x), y = axis("y", 2, log_y);
  std::smatch curve;
  REQUIRE(std::regex_search(svg, curve, std::regex("<polyline[^>]*points=\"([^\"]*)\"")));
  Points points;
  const std::string text = curve[1];
  for (const auto& match : all_matches(text, std::regex("([0-9.]+),([0-9.]+)")))
    points.emplace_back(x(std::stod(match[1])), y(std::stod(match[2])));
  return points;
}

}  // namespace

TEST_CASE("a chart's curve stands where its axes' labels say", "[report]") {
  const bool logarithmic = GENERATE(false, true);
  Points wanted(12);
  for (int i = 0; i < 12; ++i) {
    wanted[static_cast<size_t>(i)] = {logarithmic ? 64.0 * (1 << i) : 7.0 + 13 * i,
                                      0.02 + std::pow(1.7, i) * (i % 3 + 1)};
  }
  const eval::Series series{.name = "a", .colour = 0, .points = wanted};
  const std::string svg = eval::line_chart({.title = "t", .x_label = "x", .log_x = logarithmic, .log_y = logarithmic},
                                           std::span(&series, 1));
  const Points got = read_off(svg, logarithmic, logarithmic);
  REQUIRE(got.size() == wanted.size());
  const double reach = wanted.back().second;
  for (size_t i = 0; i < got.size(); ++i) {
    INFO(i);
    CHECK(got[i].first == Approx(wanted[i].first).epsilon(0.01));
    CHECK(std::abs(got[i].second - wanted[i].second) < (logarithmic ? 0.02 * wanted[i].second : 0.004 * reach));
  }
}

TEST_CASE("a chart leaves out what is no number, and thins what is too much", "[report]") {
  const double nan = std::nan("");
  eval::Series series{.name = "a", .colour = 0, .points = {{1, nan}, {2, 5}, {3, INFINITY}, {40, 6}, {50, 5.5}}};
  CHECK(read_off(eval::line_chart({.title = "t", .x_label = "x"}, std::span(&series, 1)), false, false).size() == 3);
  series.points = {{1, nan}};
  CHECK(eval::line_chart({.title = "t", .x_label = "x"}, std::span(&series, 1)).empty());
  series.points.clear();
  for (int i = 0; i < 100'000; ++i) series.points.emplace_back(i, i % 2 == 0 ? 3.0 : 5.0);  // means are 4
  const std::string svg = eval::line_chart({.title = "t", .x_label = "x", .from_zero = true}, std::span(&series, 1));
  CHECK(svg.size() < 20'000);
  for (const auto& [x, y] : read_off(svg, false, false)) CHECK(y == Approx(4).margin(0.05));
}

TEST_CASE("ticks are round, inside, and enough", "[report]") {
  CHECK(eval::ticks(0, 10, false, 6) == std::vector<double>{0, 2, 4, 6, 8, 10});
  CHECK(eval::ticks(1, 1000, true, 6) == std::vector<double>{1, 10, 100, 1000});
  for (const auto& [low, high] : Points{{0.00002, 0.00003}, {2.91, 2.97}, {1e5, 7e7}, {0.3, 40}, {-3, 1}}) {
    for (const bool logarithmic : {false, true}) {
      if (logarithmic && low <= 0) continue;
      const auto found = eval::ticks(low, high, logarithmic, 6);
      INFO(low << " to " << high << (logarithmic ? ", logarithmic" : ""));
      CHECK((found.size() >= 2 && found.size() <= 6));
      CHECK((found.front() >= low && found.back() <= high * (1 + 1e-9)));
    }
  }
  // Losses alike but for their last digit: no endless row of ticks.
  const eval::Series series{.name = "a", .colour = 0, .points = {{1, 2.0}, {2, std::nextafter(2.0, 3.0)}}};
  CHECK(eval::line_chart({.title = "t", .x_label = "x"}, std::span(&series, 1)).size() < 5'000);
  CHECK(eval::tick_label(1500) == "1500");
  CHECK(eval::tick_label(32000) == "32k");
  CHECK(eval::tick_label(2e-5) == "2e-05");
}

TEST_CASE("a report has the numbers of the files it is made of, and no name breaks it", "[report]") {
  const test::Folder folder;
  const std::string name = "a&b <script>\"x\"";
  const fs::path run = folder / name;
  folder.write(name + "/metrics.jsonl",
               "{\"step\":1,\"loss\":3.25,\"lr\":0.001,\"grad_norm\":1.5,\"tokens\":4096,\"tokens_per_s\":900.0}\n"
               "{\"step\":2,\"loss\":2.125,\"lr\":0.002,\"grad_norm\":null,\"tokens\":8192,\"tokens_per_s\":1100.0,"
               "\"valid_loss\":2.5}\n"
               "{\"step\":4,\"loss\":2.0625,\"lr\":0.002,\"grad_norm\":0.5,\"tokens\":16384,\"tokens_per_s\":1000.0,"
               "\"valid_loss\":2.75}\n"
               "{\"step\":5,\"lo");  // being written
  folder.write(name + "/recipe.resolved.json", R"({"model":{"path":"</pre><b>"},"optimizer":{"lr":0.002}})");
  folder.write("other/metrics.jsonl", "{\"step\":1,\"loss\":9.5}\n");
  folder.write("other/recipe.resolved.json", R"({"model":{"path":"</pre><b>"},"optimizer":{"lr":0.5}})");
  folder.write(name + "/ppl.json",
               R"({"results":[{"data":"x/<b>.bin","context":512,"stride":256,"windows":2,"tokens":1022,
    "loss":2.0,"ppl":7.389},{"data":"x/<b>.bin","context":2048,"stride":256,"windows":2,"tokens":4094,"loss":2.2,"ppl":9.025}]})");
  folder.write(name + "/passkey/results.json",
               R"({"model":"m<1>","task":"passkey","settings":{},"depths":[0,50],"lengths":[],"results":[
    {"context_length":512,"depth_percent":0,"version":1,"prompt_tokens":500,"score":1,"teacher_forced_accuracy":0.875,"model_response":"1"},
    {"context_length":512,"depth_percent":50,"version":1,"prompt_tokens":500,"score":0,"teacher_forced_accuracy":0.125,"model_response":"1"},
    {"context_length":1024,"depth_percent":0,"version":1,"prompt_tokens":1000,"score":1,"teacher_forced_accuracy":1,"model_response":"1"},
    {"context_length":1024,"depth_percent":50,"version":1,"prompt_tokens":1000,"score":0.25,"teacher_forced_accuracy":1,"model_response":"1"}]})");
  folder.write(name + "/needle.json",  // one prompt a depth, at depths that were named
               R"({"model":"m","task":"needle","settings":{},"depths":[0,50,100],"lengths":[],"results":[
    {"context_length":256,"depth_percent":0,"version":1,"prompt_tokens":250,"score":1,"teacher_forced_accuracy":1,"model_response":"1"},
    {"context_length":256,"depth_percent":50,"version":1,"prompt_tokens":250,"score":0.75,"teacher_forced_accuracy":1,"model_response":"1"},
    {"context_length":256,"depth_percent":100,"version":1,"prompt_tokens":250,"score":0,"teacher_forced_accuracy":1,"model_response":"1"}]})");
  folder.write(name + "/merged/tokenizer.json", "{}");
  folder.write(name + "/step-2/config.json", "{\"results\": 1}");

  eval::ReportInput input;
  input.runs = {eval::read_run(run), eval::read_run(folder / "other")};
  const auto files = eval::json_files_of(run);
  REQUIRE(files == std::vector<fs::path>{run / "needle.json", run / "passkey/results.json", run / "ppl.json"});
  for (const fs::path& file : files) CHECK(eval::read_results(file, input));
  const std::string page = eval::report_page(input);
  const auto has = [&](const std::string& text) {
    INFO(text);
    CHECK(page.find(text) != page.npos);
  };
  has("<td>4</td><td>16.4k</td><td>3.2500</td><td>2.0625</td><td>2.5000</td><td>2.7500</td><td>2.5000 at "
      "2</td><td>1000</td>");
  has("<td>7.3890</td><td>9.0250</td>");
  has("<td>score</td><td>0.500</td><td>0.625</td>");
  has("<td>teacher-forced</td><td>0.500</td><td>1.000</td>");
  has("512 tokens, 50%: 0.00");
  has("1024 tokens, 50%: 0.25");
  has("256 tokens, 50%: 0.75");
  has("<td>optimizer.lr</td><td>0.002</td><td>0.5</td>");
  CHECK(page.find("<td>model.path</td>") == page.npos);  // the same in both
  has("a&amp;b &lt;script&gt;&quot;x&quot;");
  has("&lt;/pre&gt;&lt;b&gt;");
  has("passkey: m&lt;1&gt;");
  CHECK(page.find("<script") == page.npos);
  CHECK(page.find("<b>") == page.npos);
  CHECK(page.find("http") == page.find("http://www.w3.org/2000/svg"));  // nothing is fetched

  folder.write("bad/metrics.jsonl", "{\"step\":1}\n{\"loss\":1}\n");
  CHECK_THROWS_WITH(eval::read_run(folder / "bad"), Catch::Contains("metrics.jsonl:2"));
  CHECK_THROWS_WITH(eval::read_run(folder / "none"), Catch::Contains("no metrics.jsonl"));
  CHECK_FALSE(eval::read_results(folder.write("x.json", "{\"results\":[{\"a\":1}]}"), input));
  CHECK_THROWS_WITH(eval::read_results(folder.write("y.json", R"({"results":[{"ppl":1,"context":2}]})"), input),
                    Catch::Contains("y.json") && Catch::Contains("data"));
}

}  // namespace longlora

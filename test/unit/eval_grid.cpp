// The runner of retrieval tasks: answers against full recomputation, cells that are kept and picked up again, settings that
// must not mix, tables and the picture.
#include <ATen/ATen.h>

#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

#include "core/adapt/open_model.h"
#include "core/base/error.h"
#include "core/base/random.h"
#include "core/eval/grid.h"
#include "core/eval/heatmap.h"
#include "test/unit/golden_batch.h"
#include "test/unit/temporary_folder.h"
#include "test/unit/tokenizer_fixtures.h"

using namespace longlora;
using namespace longlora::eval;
using Catch::Contains;
using nlohmann::ordered_json;

namespace {

// A golden model of 96 ids and 64 positions, and tokens for it.
const model::Llama& llama() {
  static const auto opened = adapt::open_model({.model = fs::path(LONGLORA_SOURCE_DIR) / "test/golden/models/llama-gqa",
                                                .adapter = "",
                                                .dtype = "float32",
                                                .device = "cpu",
                                                .rope = ""});
  return *opened.llama;
}

std::vector<int32_t> ids(uint64_t seed, int64_t count) {
  SplitMix random(seed);
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < count; ++i) tokens.push_back(static_cast<int32_t>(3 + random.below(90)));
  return tokens;
}

std::vector<int32_t> likeliest(const std::vector<int32_t>& tokens) {
  const at::Tensor best = llama().logits(test::golden_batch({tokens}), {}).argmax(-1).to(at::kInt).contiguous();
  return {best.data_ptr<int32_t>(), best.data_ptr<int32_t>() + best.numel()};
}

Sample sample_of(const std::vector<int32_t>& prompt, const std::vector<int32_t>& answer) {
  Sample sample;
  sample.prompt = sample.whole = prompt;
  sample.whole.insert(sample.whole.end(), answer.begin(), answer.end());
  sample.max_new_tokens = 4;
  sample.expected = {"x"};
  sample.facts = {{"needle", "a needle"}};
  return sample;
}

// A task of random ids whose score tells its cell; counts what is scored.
struct Counted {
  int scored = 0;
  Task task;
  GridOptions options;
  Counted(const Counted&) = delete;
  Counted& operator=(const Counted&) = delete;
  explicit Counted(const fs::path& out) {
    task.name = "counted";
    task.settings = {{"seed", 1}, {"texts", {{"needle", "n"}}}};
    task.takes_depth = true;
    task.make = [](const Cell& cell) {
      Sample sample = sample_of(ids(static_cast<uint64_t>(cell.length * 1000 + cell.trial), cell.length - 4), {5, 6});
      sample.depth = cell.depth;
      return sample;
    };
    task.score = [this](const Sample& sample, const std::string&, std::span<const int32_t> tokens) {
      ++scored;
      return static_cast<double>(sample.prompt.size() + static_cast<size_t>(tokens.front())) / 1000;
    };
    options = {.lengths = {16, 32},
               .depths = {0, 50},
               .trials = 2,
               .out = out,
               .model_name = "gqa-1.5",
               .settings = {{"template", "none"}},
               .stop = {2}};
  }
  std::vector<CellResult> run() {
    return run_grid(llama(), tokenizer_fixtures::load("sentencepiece-llama2"), task, options);
  }
};

ordered_json timeless(const fs::path& file) {
  ordered_json record = ordered_json::parse(read_file(file));
  record.erase("test_duration_seconds");
  record.erase("test_timestamp_utc");
  return record;
}

}  // namespace

TEST_CASE("a greedy answer and the teacher-forced accuracy equal full recomputation", "[eval]") {
  for (uint64_t seed = 0; seed < 8; ++seed) {
    INFO("seed " << seed);
    const std::vector<int32_t> prompt = ids(seed, 20 + static_cast<int64_t>(seed));
    std::vector<int32_t> grown = prompt;
    for (int i = 0; i < 4; ++i) grown.push_back(likeliest(grown).back());
    // An answer that is right at first, then wrong, then right again given the wrong one.
    std::vector<int32_t> answer = {grown[prompt.size()], (grown[prompt.size() + 1] + 1) % 90 + 3};
    std::vector<int32_t> whole = prompt;
    whole.insert(whole.end(), answer.begin(), answer.end());
    answer.push_back(likeliest(whole).back());
    whole.push_back(answer.back());
    const std::vector<int32_t> best = likeliest(whole);
    int right = 0;
    for (size_t i = 0; i < answer.size(); ++i) right += best[prompt.size() + i - 1] == answer[i];
    REQUIRE(right >= 2);

    const Answered got = eval::answer(llama(), sample_of(prompt, answer), {});
    CHECK(got.tokens == std::vector<int32_t>(grown.end() - 4, grown.end()));
    CHECK(got.forced == Approx(right / 3.0));
    // The answer's first token may reach back over the prompt's end.
    Sample reaching = sample_of(prompt, {});
    reaching.whole.assign(whole.begin(), whole.end());
    reaching.prompt.back() = reaching.prompt.back() == 5 ? 6 : 5;
    const std::vector<int32_t> over = likeliest(reaching.whole);
    int covered = 0;
    for (size_t i = prompt.size() - 1; i < whole.size(); ++i) covered += over[i - 1] == whole[i];
    CHECK(eval::answer(llama(), reaching, {}).forced == Approx(covered / 4.0));
    const std::vector<int32_t> stop = {got.tokens[1]};
    CHECK(eval::answer(llama(), sample_of(prompt, answer), stop).tokens.size() <= 1);
  }
}

TEST_CASE("cells are kept as files of the usual form and a second run computes only what is missing", "[eval]") {
  const test::TemporaryFolder folder;
  const fs::path out = folder.path() / "grid";
  Counted first(out);
  const auto results = first.run();
  CHECK(first.scored == 8);
  REQUIRE(results.size() == 8);
  const fs::path lost = out / "results/gqa-1_5_len_32_depth_5000_version_2_results.json";
  REQUIRE(fs::exists(lost));
  const ordered_json record = timeless(lost);
  CHECK(record["model"] == "gqa-1.5");
  CHECK(record["context_length"] == 32);
  CHECK(record["depth_percent"] == 50.0);
  CHECK(record["version"] == 2);
  CHECK(record["needle"] == "a needle");
  CHECK(record["prompt_tokens"] == 28);
  for (const char* key : {"model_response", "score", "teacher_forced_accuracy"}) CHECK(record.contains(key));

  std::map<fs::path, std::string> before;
  for (const auto& entry : fs::directory_iterator(out / "results")) before[entry.path()] = read_file(entry.path());
  CHECK(before.size() == 8);
  fs::remove(lost);
  Counted second(out);
  const auto again = second.run();
  CHECK(second.scored == 1);
  CHECK(timeless(lost) == record);
  for (const auto& [path, bytes] : before)
    if (path != lost) CHECK(read_file(path) == bytes);
  for (size_t i = 0; i < results.size(); ++i) {
    CHECK(again[i].cell == results[i].cell);
    CHECK(again[i].score == results[i].score);
    CHECK(again[i].forced == results[i].forced);
    CHECK(again[i].response == results[i].response);
  }
  // More of the grid is not another setting.
  second.options.trials = 3;
  second.options.lengths = {16, 24, 32};
  CHECK(second.run().size() == 18);
  CHECK(second.scored == 1 + 10);
}

TEST_CASE("a folder of other settings is refused by name, a damaged cell too, and nothing is changed", "[eval]") {
  const test::TemporaryFolder folder;
  const fs::path out = folder.path() / "grid";
  (void)Counted(out).run();
  const std::string settings = read_file(out / "settings.json");
  Counted other(out);
  other.task.settings["texts"]["needle"] = "another";
  CHECK_THROWS_WITH(other.run(), Contains("settings.texts.needle: \"n\" there, \"another\" now"));
  other.task.settings["texts"]["needle"] = "n";
  other.options.settings["template"] = "llama-2";
  CHECK_THROWS_WITH(other.run(), Contains("run.template"));
  CHECK(other.scored == 0);
  CHECK(read_file(out / "settings.json") == settings);
  const fs::path cell = out / "results/gqa-1_5_len_16_depth_0_version_1_results.json";
  test::write_file(cell, read_file(cell).substr(0, 40));
  CHECK_THROWS_WITH(Counted(out).run(), Contains(cell.string()) && Contains("damaged"));
  test::write_file(cell, "{}");
  CHECK_THROWS_WITH(Counted(out).run(), Contains("no result of this program"));
  fs::remove(out / "settings.json");
  CHECK_THROWS_WITH(Counted(out).run(), Contains("without a settings.json"));
}

TEST_CASE("prompts beyond what the model covers are refused before any is computed, unless allowed", "[eval]") {
  const test::TemporaryFolder folder;
  Counted grid(folder.path() / "grid");
  grid.options.lengths = {16, 80};
  bool beyond = false;
  grid.options.check = [&](int64_t tokens) { adapt::check_covered(llama().config(), tokens, beyond); };
  try {
    (void)grid.run();
    FAIL("not refused");
  } catch (const Error& error) {
    CHECK(error.code() == Exit::usage);
    CHECK_THAT(error.what(), Contains("80 tokens are more than the 64") && Contains("--beyond"));
  }
  CHECK(grid.scored == 0);
  CHECK_FALSE(fs::exists(folder.path() / "grid"));
  beyond = true;
  CHECK(grid.run().size() == 8);
}

TEST_CASE("the table has the means of its cells, in rows of depths or of fifths", "[eval]") {
  const auto cell = [](int64_t length, double asked, double depth, double score) {
    return CellResult{.cell = {length, asked, 0},
                      .depth = depth,
                      .score = score,
                      .forced = score / 2,
                      .prompt_tokens = 7,
                      .response = ""};
  };
  const std::vector<CellResult> grid = {cell(32, 50, 50, 1), cell(16, 0, 0, 0.5), cell(16, 0, 0, 0),
                                        cell(16, 50, 50, 1)};
  const GridTable table = tabulate(grid);
  CHECK(table.lengths == std::vector<int64_t>{16, 32});
  CHECK(table.rows == std::vector<std::string>{"0%", "50%"});
  CHECK(table.score[0][0] == 0.25);
  CHECK(std::isnan(table.score[0][1]));
  CHECK(table.score[1] == std::vector<double>{1, 1});
  CHECK(table.mean_score == std::vector<double>{0.5, 1});
  CHECK(table.mean_forced == std::vector<double>{0.25, 0.5});
  CHECK(table.cells == std::vector<int64_t>{3, 1});
  CHECK(table.mean_tokens == std::vector<int64_t>{7, 7});

  const std::vector<CellResult> drawn = {cell(16, -1, 0, 1), cell(16, -1, 19.9, 0), cell(16, -1, 20, 1),
                                         cell(16, -1, 100, 1)};
  CHECK(tabulate(drawn).rows == std::vector<std::string>{"0-20%", "20-40%", "80-100%"});
  CHECK(tabulate(drawn).score[0][0] == 0.5);
  const std::vector<CellResult> nowhere = {cell(16, -1, -1, 1), cell(16, -1, -1, 0)};
  CHECK(tabulate(nowhere).rows == std::vector<std::string>{"all"});
}

TEST_CASE("the heatmap is a well-formed picture, green where it works", "[eval]") {
  CHECK(heat_colour(0) == "#f0496e");
  CHECK(heat_colour(0.5) == "#ebb839");
  CHECK(heat_colour(1) == "#0cd79f");
  GridTable table;
  table.lengths = {512, 4096, 100000};
  table.rows = {"0%", "100%"};
  table.score = {{0, 1, 0.5}, {1, std::numeric_limits<double>::quiet_NaN(), 1}};
  const std::string svg = heatmap_svg(table, "needle: <a & \"b\">", "two\x01 prompts");
  // Every tag is closed by its own, attributes are quoted, and nothing else has a < or a bare &.
  std::vector<std::string> open;
  for (size_t at = 0; (at = svg.find('<', at)) != std::string::npos;) {
    const size_t end = svg.find('>', at);
    REQUIRE(end != std::string::npos);
    const std::string tag = svg.substr(at + 1, end - at - 1);
    CHECK(tag.find('<') == std::string::npos);
    CHECK(std::count(tag.begin(), tag.end(), '"') % 2 == 0);
    const std::string name = tag.substr(tag[0] == '/' ? 1 : 0, tag.find_first_of(" /", 1) - (tag[0] == '/' ? 1 : 0));
    if (tag[0] == '/') {
      REQUIRE_FALSE(open.empty());
      CHECK(open.back() == name);
      open.pop_back();
    } else if (tag.back() != '/') {
      open.push_back(name);
    }
    at = end;
  }
  CHECK(open.empty());
  for (size_t at = 0; (at = svg.find('&', at)) != std::string::npos; ++at)
    CHECK((svg.compare(at, 5, "&amp;") == 0 || svg.compare(at, 4, "&lt;") == 0 || svg.compare(at, 4, "&gt;") == 0 ||
           svg.compare(at, 6, "&quot;") == 0));
  CHECK(svg.find('\x01') == std::string::npos);
  const auto count = [&](const std::string& part) {
    int64_t n = 0;
    for (size_t at = 0; (at = svg.find(part, at)) != std::string::npos; ++at) ++n;
    return n;
  };
  CHECK(count("fill=\"#0cd79f\"><title>") == 3);  // the ones
  CHECK(count("fill=\"#f0496e\"><title>") == 1);
  CHECK(count("<title>") == 5);  // the cells with a value
  CHECK(svg.find("needle: &lt;a &amp; &quot;b&quot;&gt;") != std::string::npos);
  for (const char* outside : {"href", "url(", "@import", "<script"}) CHECK(svg.find(outside) == std::string::npos);
}

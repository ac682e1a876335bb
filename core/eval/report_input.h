// What a report is made of, read from files: a run's metrics.jsonl and recipe.resolved.json, and results of eval-ppl and of
// the retrieval tests.
#pragma once
#include <map>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "core/base/file.h"
#include "core/eval/grid.h"

namespace longlora::eval {

struct RunLog {
  std::string name;
  // By the keys of metrics.jsonl ("loss", "valid_loss", ...): step and value, NaN for null.
  std::map<std::string, std::vector<std::pair<double, double>>> curves;
  nlohmann::ordered_json recipe;  // null without one
};

struct PerplexityLine {
  std::string data;
  int64_t context = 0, tokens = 0;
  double loss = 0, ppl = 0;
};
struct PerplexityFile {
  std::string name;
  std::vector<PerplexityLine> lines;
};
struct GridFile {
  std::string name, task, model;
  GridTable table;
};

struct ReportInput {
  std::vector<RunLog> runs;
  std::vector<PerplexityFile> perplexities;
  std::vector<GridFile> grids;
};

// Exit 3 when it has no metrics.jsonl, and naming file:line for a damaged one; a last line without its end is what a run
// that goes on is writing, and left out.
[[nodiscard]] RunLog read_run(const fs::path& folder);

// Adds a results file. False when it is none; exit 3 naming file and key for a damaged one.
bool read_results(const fs::path& file, ReportInput& into);

// The .json files in a run's folder and one folder below, where its evaluations may have been put; not those of its
// checkpoints. In order.
[[nodiscard]] std::vector<fs::path> json_files_of(const fs::path& run);

}  // namespace longlora::eval

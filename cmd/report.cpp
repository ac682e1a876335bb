// `longlora report`: runs and evaluations on one HTML page.
#include "core/eval/report.h"

#include <set>

#include "cmd/verb.h"
#include "core/base/file.h"
#include "core/base/log.h"

namespace longlora::cmd {
namespace {

// What is named, and the results found in the runs' folders; each file once.
eval::ReportInput read_all(const std::vector<std::string>& named, std::vector<fs::path>& runs) {
  eval::ReportInput input;
  std::vector<fs::path> found;
  std::set<fs::path> seen;
  for (const fs::path path : named) {
    if (fs::is_directory(path) && (fs::exists(path / "metrics.jsonl") || !fs::exists(path / "results.json"))) {
      input.runs.push_back(eval::read_run(path));
      runs.push_back(path);
      for (const fs::path& file : eval::json_files_of(path)) found.push_back(file);
      continue;
    }
    const fs::path file = fs::is_directory(path) ? path / "results.json" : path;
    seen.insert(fs::weakly_canonical(file));
    if (!eval::read_results(file, input))
      input_error("{}: holds no results of eval-ppl, eval-passkey, eval-needle or eval-retrieval", file.string());
  }
  for (const fs::path& file : found) {  // what lies there may be anything, such as a recipe with comments
    if (!seen.insert(fs::weakly_canonical(file)).second) continue;
    try {
      (void)eval::read_results(file, input);
    } catch (const Error& error) {
      log::warn("left out: {}", error.what());
    }
  }
  return input;
}

Exit run(const cxxopts::ParseResult& arguments) {
  const std::vector<std::string>& named = arguments.unmatched();
  if (named.empty()) usage_error("report: of what? usage: longlora report RUN ... [RESULTS.json ...]");
  std::vector<fs::path> runs;
  const eval::ReportInput input = read_all(named, runs);
  if (runs.empty() && arguments.count("out") == 0)
    usage_error("report: no run is named, in whose folder the page could go; say where with --out FILE");
  const fs::path out =
      arguments.count("out") > 0 ? fs::path(arguments["out"].as<std::string>()) : runs.front() / "report.html";
  if (arguments.count("overwrite") == 0) {
    if (fs::is_regular_file(out))
      usage_error("{}: exists already; pass --overwrite, or give another name with --out", out.string());
    check_new_file(out, "--out");
  }
  write_file_atomically(out, eval::report_page(input));
  fmt::print("{}: {} runs, {} perplexity files, {} retrieval grids\n", out.string(), input.runs.size(),
             input.perplexities.size(), input.grids.size());
  return Exit::done;
}

}  // namespace

Verb report_verb() {
  return {
      "report",
      "runs and evaluations on one HTML page, with charts",
      "RUN ... [RESULTS.json ...]",
      "RUN is the folder of a run of train or sft (checkpoint.dir). Results of eval-ppl, eval-passkey, eval-needle "
      "and\n"
      "eval-retrieval (--json FILE, or the folder of --out) are taken from it and from the folders in it, or named.\n"
      "The page is one file without scripts that needs no network.\n\n"
      "  longlora report runs/7b-32k\n"
      "  longlora report runs/7b-32k runs/7b-32k-full base-ppl.json --out comparison.html",
      [](cxxopts::Options& options) {
        options.add_options()("out", "the page (default: report.html in the first RUN)", cxxopts::value<std::string>(),
                              "FILE")("overwrite", "replace it if it exists");
      },
      run};
}

}  // namespace longlora::cmd

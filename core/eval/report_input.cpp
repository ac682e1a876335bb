#include "core/eval/report_input.h"

#include <algorithm>
#include <limits>

#include "core/base/error.h"
#include "core/io/json_file.h"

namespace longlora::eval {
namespace {

using nlohmann::ordered_json;

// "7b-32k" of "runs/7b-32k/"; with its parent "7b-32k/ppl.json" of a file in it, "7b-32k/passkey" of passkey/results.json.
std::string name_of(const fs::path& path, bool with_parent) {
  if (with_parent && path.filename() == "results.json" && path.has_parent_path())
    return name_of(path.parent_path(), true);
  fs::path clean = fs::absolute(path).lexically_normal();
  if (!clean.has_filename()) clean = clean.parent_path();
  const std::string own = clean.filename().string();
  return with_parent ? clean.parent_path().filename().string() + "/" + own : own;
}

double number_or_nan(const ordered_json& value) {
  return value.is_number() ? value.get<double>() : std::numeric_limits<double>::quiet_NaN();
}

GridFile grid_of(const ordered_json& root, const fs::path& file) {
  std::vector<CellResult> results;
  for (const ordered_json& cell : root.at("results")) {
    CellResult r;
    r.cell.length = cell.at("context_length").get<int64_t>();
    r.depth = cell.at("depth_percent").is_null() ? -1 : cell.at("depth_percent").get<double>();
    r.cell.depth = r.depth;
    r.cell.trial = cell.at("version").get<int64_t>() - 1;
    r.prompt_tokens = cell.at("prompt_tokens").get<int64_t>();
    r.score = number_or_nan(cell.at("score"));
    r.forced = number_or_nan(cell.at("teacher_forced_accuracy"));
    results.push_back(std::move(r));
  }
  if (results.empty()) input_error("{}: has no results", file.string());
  const auto depths = root.find("depths");  // those that were named; without them the task drew the places
  if (depths == root.end() || depths->is_null())
    for (CellResult& r : results) r.cell.depth = -1;
  return {.name = name_of(file, true),
          .task = root.at("task").get<std::string>(),
          .model = root.at("model").get<std::string>(),
          .table = tabulate(results)};
}

PerplexityFile perplexity_of(const ordered_json& root, const fs::path& file) {
  PerplexityFile out{.name = name_of(file, true), .lines = {}};
  for (const ordered_json& line : root.at("results")) {
    out.lines.push_back({.data = name_of(line.at("data").get<std::string>(), false),
                         .context = line.at("context").get<int64_t>(),
                         .tokens = line.at("tokens").get<int64_t>(),
                         .loss = number_or_nan(line.at("loss")),
                         .ppl = number_or_nan(line.at("ppl"))});
  }
  return out;
}

}  // namespace

RunLog read_run(const fs::path& folder) {
  const fs::path file = folder / "metrics.jsonl";
  if (!fs::exists(file))
    input_error("{}: holds no metrics.jsonl, which train and sft write into checkpoint.dir", folder.string());
  RunLog run{.name = name_of(folder, false), .curves = {}, .recipe = {}};
  const std::string text = read_file(file);
  int64_t number = 0;
  for (size_t begin = 0, end = 0; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1) {
    ++number;
    const ordered_json line = ordered_json::parse(text.substr(begin, end - begin), nullptr, /*allow_exceptions=*/false);
    if (!line.is_object() || !line.contains("step") || !line["step"].is_number_integer())
      input_error("{}:{}: is no line of a run's log", file.string(), number);
    const auto step = line["step"].get<double>();
    for (const auto& [key, value] : line.items())
      if (value.is_number() || value.is_null()) run.curves[key].emplace_back(step, number_or_nan(value));
  }
  const fs::path recipe = folder / "recipe.resolved.json";
  if (fs::exists(recipe)) run.recipe = io::read_json(recipe);
  return run;
}

bool read_results(const fs::path& file, ReportInput& into) {
  const ordered_json root = io::read_json(file);
  const auto results = root.is_object() ? root.find("results") : root.end();
  if (results == root.end() || !results->is_array() || results->empty() || !results->front().is_object()) return false;
  const ordered_json& first = results->front();
  try {
    if (first.contains("depth_percent") && root.contains("task")) {
      into.grids.push_back(grid_of(root, file));
    } else if (first.contains("ppl") && first.contains("context")) {
      into.perplexities.push_back(perplexity_of(root, file));
    } else {
      return false;
    }
  } catch (const ordered_json::exception& error) {
    input_error("{}: {}", file.string(), error.what());
  }
  return true;
}

std::vector<fs::path> json_files_of(const fs::path& run) {
  std::vector<fs::path> files;
  const auto add = [&](const fs::path& folder) {
    for (const auto& entry : fs::directory_iterator(folder)) {
      const fs::path name = entry.path().filename();
      const bool other = name == "recipe.resolved.json" || name == "tokenizer.json";  // that takes seconds to read
      if (entry.is_regular_file() && name.extension() == ".json" && !other) files.push_back(entry.path());
    }
  };
  add(run);
  for (const auto& entry : fs::directory_iterator(run)) {
    const std::string name = entry.path().filename().string();
    if (entry.is_directory() && name != "final" && name != "cache" && !name.starts_with("step-") &&
        !name.starts_with('.'))
      add(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace longlora::eval

#include "core/eval/grid.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <ctime>
#include <limits>
#include <map>

#include "core/base/error.h"
#include "core/base/progress.h"
#include "core/base/signal.h"
#include "core/eval/generate.h"
#include "core/text/stream_decoder.h"

namespace longlora::eval {
namespace {

using nlohmann::ordered_json;

[[noreturn]] void interrupted(const GridOptions& options, size_t done, size_t all) {
  if (options.out.empty())
    throw Stopped("stopped; run the same command again, with --out finished cells would be kept");
  throw Stopped(
      fmt::format("stopped; {} of {} cells are in {}, the same command goes on", done, all, options.out.string()));
}

// Every difference of two settings, by the dotted name of the key.
void compare(const std::string& name, const ordered_json& there, const ordered_json& now, std::string& differences) {
  if (there == now) return;
  if (there.is_object() && now.is_object()) {
    std::map<std::string, int> keys;
    for (const auto* side : {&there, &now})
      for (const auto& [key, value] : side->items()) keys[key] = 0;
    for (const auto& [key, unused] : keys) {
      compare(name.empty() ? key : name + "." + key, there.value(key, ordered_json()), now.value(key, ordered_json()),
              differences);
    }
    return;
  }
  differences += fmt::format("{}{}: {} there, {} now", differences.empty() ? "" : "; ", name, there.dump(), now.dump());
}

ordered_json parse(const fs::path& path) {
  try {
    return ordered_json::parse(read_file(path));
  } catch (const nlohmann::json::exception&) {
    input_error("{}: is damaged; delete it and run again", path.string());
  }
}

// settings.json says what the folder's cells were made with: written the first time, compared ever after.
void claim_folder(const Task& task, const GridOptions& options) {
  if (options.out.empty()) return;
  std::error_code fault;
  fs::create_directories(options.out / "results", fault);
  if (fault) fail("{}: cannot be made a folder: {}", options.out.string(), fault.message());
  const ordered_json now = {{"task", task.name}, {"settings", task.settings}, {"run", options.settings}};
  const fs::path file = options.out / "settings.json";
  if (!fs::exists(file)) {
    if (!fs::is_empty(options.out / "results"))
      usage_error("{}: has results without a settings.json; give another --out", options.out.string());
    return write_file_atomically(file, now.dump(2) + "\n");
  }
  std::string differences;
  compare("", parse(file), now, differences);
  if (!differences.empty())
    usage_error("{}: its cells were made with other settings ({}); give another --out", options.out.string(),
                differences);
}

CellResult read_cell(const fs::path& path, const Cell& cell) {
  const ordered_json record = parse(path);
  try {
    const auto& depth = record.at("depth_percent");
    return {.cell = cell,
            .depth = depth.is_null() ? -1 : depth.get<double>(),
            .score = record.at("score").get<double>(),
            .forced = record.at("teacher_forced_accuracy").get<double>(),
            .prompt_tokens = record.at("prompt_tokens").get<int64_t>(),
            .response = record.at("model_response").get<std::string>()};
  } catch (const nlohmann::json::exception&) {
    input_error("{}: is no result of this program; delete it and run again", path.string());
  }
}

void write_cell(const fs::path& path, const Task& task, const GridOptions& options, const Sample& sample,
                const CellResult& result, double seconds) {
  ordered_json record = {{"model", options.model_name},
                         {"task", task.name},
                         {"context_length", result.cell.length},
                         {"depth_percent", result.depth < 0 ? ordered_json() : ordered_json(result.depth)},
                         {"version", result.cell.trial + 1}};
  record.update(sample.facts);
  record.update({{"expected", sample.expected},
                 {"model_response", result.response},
                 {"score", result.score},
                 {"teacher_forced_accuracy", result.forced},
                 {"prompt_tokens", result.prompt_tokens},
                 {"test_duration_seconds", seconds}});
  char stamp[32];
  const std::time_t now = std::time(nullptr);
  std::strftime(stamp, sizeof stamp, "%Y-%m-%d %H:%M:%S+0000", std::gmtime(&now));
  record["test_timestamp_utc"] = stamp;
  write_file_atomically(path, record.dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n");
}

int64_t tokens_of(const Sample& sample) {
  return static_cast<int64_t>(
      std::max(sample.whole.size(), sample.prompt.size() + static_cast<size_t>(sample.max_new_tokens)));
}

}  // namespace

std::vector<Cell> cells_of(const GridOptions& options) {
  const std::vector<double> depths = options.depths.empty() ? std::vector<double>{-1} : options.depths;
  std::vector<Cell> cells;
  for (const int64_t length : options.lengths)
    for (const double depth : depths)
      for (int64_t trial = 0; trial < options.trials; ++trial) cells.push_back({length, depth, trial});
  return cells;
}

fs::path cell_file(const GridOptions& options, const Cell& cell) {
  std::string name = options.model_name;
  for (char& c : name)
    if (c == '.') c = '_';
  const std::string depth = cell.depth < 0 ? "any" : fmt::format("{}", std::llround(cell.depth * 100));
  return options.out / "results" /
         fmt::format("{}_len_{}_depth_{}_version_{}_results.json", name, cell.length, depth, cell.trial + 1);
}

Answered answer(const model::Llama& llama, const Sample& sample, std::span<const int32_t> stop) {
  Answered answered;
  const size_t begin = std::max<size_t>(1, answer_begin(sample)), wanted = sample.whole.size() - begin;
  model::KvCache cache = llama.make_cache(tokens_of(sample));
  const at::Tensor after_prompt = llama.next_logits(sample.prompt, cache);
  const GenerateOptions greedy{.max_new_tokens = sample.max_new_tokens};
  answered.tokens =
      continue_from(llama, cache, {}, after_prompt, stop, greedy, [](int32_t) { return !stop_requested(); });

  // The answer's tokens in place of the model's, from where they part from the prompt.
  int64_t right = 0;
  cache.length = static_cast<int64_t>(begin);
  at::Tensor logits = after_prompt;
  if (begin < sample.prompt.size()) {
    cache.length -= 1;
    logits = llama.next_logits(std::span(sample.whole).subspan(begin - 1, 1), cache);
  }
  for (size_t i = begin; i < sample.whole.size(); ++i) {
    right += pick_token(logits, greedy, 0) == sample.whole[i] ? 1 : 0;
    if (i + 1 < sample.whole.size()) logits = llama.next_logits(std::span(sample.whole).subspan(i, 1), cache);
  }
  answered.forced = wanted == 0 ? 0 : static_cast<double>(right) / static_cast<double>(wanted);
  return answered;
}

std::vector<CellResult> run_grid(const model::Llama& llama, const std::shared_ptr<const text::Tokenizer>& tokenizer,
                                 const Task& task, const GridOptions& options) {
  const std::vector<Cell> cells = cells_of(options);
  for (const int64_t length : options.lengths) {  // a length that cannot be is found before the first is computed
    if (!task.nominal) options.check(length);
    const auto first =
        std::find_if(cells.begin(), cells.end(), [&](const Cell& cell) { return cell.length == length; });
    options.check(tokens_of(task.make(*first)));
  }
  claim_folder(task, options);
  Progress progress(task.name, static_cast<int64_t>(cells.size()), "cells");
  std::vector<CellResult> results;
  double sum = 0;
  for (const Cell& cell : cells) {
    if (stop_requested()) interrupted(options, results.size(), cells.size());
    const fs::path file = cell_file(options, cell);
    if (!options.out.empty() && fs::exists(file)) {
      results.push_back(read_cell(file, cell));
    } else {
      const auto start = std::chrono::steady_clock::now();
      const Sample sample = task.make(cell);
      options.check(tokens_of(sample));
      Answered answered;
      try {
        answered = answer(llama, sample, options.stop);
        leave_if_stopped();
      } catch (const Stopped&) {
        interrupted(options, results.size(), cells.size());
      }
      text::StreamDecoder decoder(tokenizer);
      (void)decoder.push(sample.prompt);
      std::string response = decoder.push(answered.tokens);
      response += decoder.finish();
      const double score = task.score(sample, response, answered.tokens);
      results.push_back({.cell = cell,
                         .depth = sample.depth,
                         .score = score,
                         .forced = answered.forced,
                         .prompt_tokens = static_cast<int64_t>(sample.prompt.size()),
                         .response = std::move(response)});
      const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
      if (!options.out.empty()) write_cell(file, task, options, sample, results.back(), took.count());
    }
    sum += results.back().score;
    progress.update(static_cast<int64_t>(results.size()),
                    fmt::format("score {:.2f}", sum / static_cast<double>(results.size())));
  }
  progress.clear();
  return results;
}

GridTable tabulate(std::span<const CellResult> results) {
  constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
  constexpr int64_t kBins = 5;
  GridTable table;
  bool drawn = false, placed = true;  // whether the task drew the places; whether every answer has one
  std::map<int64_t, size_t> columns;
  std::map<double, size_t> rows;
  for (const CellResult& r : results) {
    drawn = drawn || r.cell.depth < 0;
    placed = placed && r.depth >= 0;
    columns[r.cell.length] = 0;
  }
  const auto row_key = [&](const CellResult& r) {
    if (!drawn) return r.cell.depth;
    return placed ? static_cast<double>(std::min<int64_t>(kBins - 1, static_cast<int64_t>(r.depth * kBins / 100)))
                  : 0.0;
  };
  for (const CellResult& r : results) rows[row_key(r)] = 0;
  for (auto& [length, index] : columns) {
    index = table.lengths.size();
    table.lengths.push_back(length);
  }
  for (auto& [key, index] : rows) {
    index = table.rows.size();
    table.rows.push_back(!drawn    ? fmt::format("{:g}%", key)
                         : !placed ? std::string("all")
                                   : fmt::format("{:g}-{:g}%", key * 100 / kBins, (key + 1) * 100 / kBins));
  }
  const auto mean = [&](double CellResult::*value, int64_t length, const double* row) {
    double sum = 0, n = 0;
    for (const CellResult& r : results) {
      if (r.cell.length != length || (row != nullptr && row_key(r) != *row)) continue;
      sum += r.*value;
      ++n;
    }
    return n > 0 ? sum / n : kNone;
  };
  for (const auto& [key, index] : rows) {
    table.score.emplace_back();
    table.forced.emplace_back();
    for (const int64_t length : table.lengths) {
      table.score.back().push_back(mean(&CellResult::score, length, &key));
      table.forced.back().push_back(mean(&CellResult::forced, length, &key));
    }
  }
  for (const int64_t length : table.lengths) {
    table.mean_score.push_back(mean(&CellResult::score, length, nullptr));
    table.mean_forced.push_back(mean(&CellResult::forced, length, nullptr));
    int64_t cells = 0, tokens = 0;
    for (const CellResult& r : results) {
      if (r.cell.length != length) continue;
      ++cells;
      tokens += r.prompt_tokens;
    }
    table.cells.push_back(cells);
    table.mean_tokens.push_back(tokens / cells);
  }
  return table;
}

}  // namespace longlora::eval

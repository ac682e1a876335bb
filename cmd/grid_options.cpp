#include "cmd/grid_options.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "core/base/hash.h"
#include "core/base/log.h"
#include "core/data/glob.h"
#include "core/eval/heatmap.h"
#include "core/io/context_record.h"
#include "core/io/json_file.h"
#include "core/io/safetensors.h"
#include "core/model/device.h"
#include "core/model/tensors.h"

namespace longlora::cmd {
namespace {

using nlohmann::ordered_json;

constexpr int64_t kLongest = 100'000'000;
// Of a haystack; whatever the lengths are, so that a folder can get longer ones later.
constexpr size_t kHaystackBytes = 32 << 20;

// A folder's name, with its parent's where it says little: "Llama-2-7b-hf", "7b-32k-final", "7b-32k-step-200".
std::string folder_name(const fs::path& path) {
  fs::path clean = fs::absolute(path).lexically_normal();
  if (!clean.has_filename()) clean = clean.parent_path();
  const std::string name = clean.filename().string(), parent = clean.parent_path().filename().string();
  return (name == "final" || name.starts_with("step-")) && !parent.empty() ? parent + "-" + name : name;
}

std::string model_name(const adapt::OpenOptions& model) {
  std::string name = folder_name(model.model);
  for (const fs::path& adapter : adapt::all_adapters(model)) name += "+" + folder_name(adapter);
  return name;
}

// What tells one model from another, wherever it lies.
ordered_json model_identity(const adapt::OpenOptions& model, const model::Llama& llama) {
  ordered_json identity = {{"model", io::model_fingerprint(io::TensorStore(model.model))},
                           {"config", fingerprint(read_file(model.model / "config.json"))},
                           {"adapter", nullptr},
                           {"rope", model.rope},
                           {"dtype", model::name_of(llama.dtype())},
                           {"products", ops::to_string(llama.product())}};
  std::string parts;
  for (const fs::path& adapter : adapt::all_adapters(model)) {
    std::vector<fs::path> files;
    for (const auto& entry : fs::directory_iterator(adapter))
      if (entry.is_regular_file()) files.push_back(entry.path());
    std::sort(files.begin(), files.end());
    for (const fs::path& file : files) {
      const std::string extension = file.extension().string();
      if (extension != ".safetensors" && extension != ".bin" && extension != ".json") continue;
      const MappedFile map(file);
      parts += fingerprint({reinterpret_cast<const char*>(map.bytes().data()), map.bytes().size()});
    }
  }
  if (!parts.empty()) identity["adapter"] = fingerprint(parts);
  return identity;
}

std::string cell_text(double value) {
  return std::isnan(value) ? "-" : fmt::format("{:.2f}", value);
}

void print_table(const eval::GridTable& table) {
  std::string line = fmt::format("{:<16}", "tokens");
  for (const int64_t length : table.lengths) line += fmt::format("{:>9}", length);
  fmt::print("{}\n", line);
  const auto row = [&](const std::string& name, const std::vector<double>& values) {
    std::string text = fmt::format("{:<16}", name);
    for (const double value : values) text += fmt::format("{:>9}", cell_text(value));
    fmt::print("{}\n", text);
  };
  if (table.rows.size() > 1)
    for (size_t r = 0; r < table.rows.size(); ++r) row("depth " + table.rows[r], table.score[r]);
  row("score", table.mean_score);
  row("teacher-forced", table.mean_forced);
  line = fmt::format("{:<16}", "prompt tokens");
  for (const int64_t tokens : table.mean_tokens) line += fmt::format("{:>9}", tokens);
  fmt::print("{}\n", line);
}

// A grid that goes on computes as it began, whatever is fastest now. Empty: none has begun, or another dtype is asked for.
std::optional<model::Compute> begun_with(const fs::path& settings, const std::string& asked) {
  if (!fs::exists(settings)) return std::nullopt;
  const ordered_json run = io::read_json(settings).value("run", ordered_json::object());
  const std::string dtype = run.value("dtype", ""), products = run.value("products", "");
  const auto backend = ops::parse_product(products);
  if (!backend || (asked != "auto" && asked != dtype)) return std::nullopt;
  return model::Compute{model::parse_dtype(dtype), {*backend, 0}};
}

bool depths_named(const GridArguments& arguments, const eval::Task& task) {  // or drawn by the task
  return task.takes_depth && !arguments.grid.depths.empty();
}

ordered_json results_json(const GridArguments& arguments, const eval::Task& task,
                          std::span<const eval::CellResult> results, const eval::GridTable& table,
                          const model::Llama& llama) {
  ordered_json cells = ordered_json::array(), lengths = ordered_json::array();
  for (const eval::CellResult& r : results) {
    cells.push_back({{"context_length", r.cell.length},
                     {"depth_percent", r.depth < 0 ? ordered_json() : ordered_json(r.depth)},
                     {"version", r.cell.trial + 1},
                     {"prompt_tokens", r.prompt_tokens},
                     {"score", r.score},
                     {"teacher_forced_accuracy", r.forced},
                     {"model_response", r.response}});
  }
  for (size_t i = 0; i < table.lengths.size(); ++i) {
    lengths.push_back({{"context_length", table.lengths[i]},
                       {"cells", table.cells[i]},
                       {"mean_prompt_tokens", table.mean_tokens[i]},
                       {"score", table.mean_score[i]},
                       {"teacher_forced_accuracy", table.mean_forced[i]}});
  }
  return {{"model", arguments.grid.model_name},
          {"task", task.name},
          {"settings", task.settings},
          {"depths", depths_named(arguments, task) ? ordered_json(arguments.grid.depths) : ordered_json()},
          {"lengths", lengths},
          {"results", cells},
          {"dtype", model::name_of(llama.dtype())},
          {"products", ops::to_string(llama.product())},
          {"device", model::describe_device(llama.device())}};
}

}  // namespace

void declare_grid_options(cxxopts::Options& options, const GridDefaults& defaults) {
  declare_model_options(options);
  options.add_options()("lengths", "lengths in tokens, prompt and answer together: 2048,4096",
                        cxxopts::value<std::string>(), "N[,N...]");
  if (defaults.depths != nullptr) {
    options.add_options()(
        "depths", fmt::format("how many depths from 0 to 100 %, or which: 10,50,90 (default: {})", defaults.depths),
        cxxopts::value<std::string>(), "N|P,P...");
  }
  options.add_options()("trials", "prompts a cell", cxxopts::value<int64_t>()->default_value(defaults.trials), "N")(
      "haystack", fmt::format("text to hide in: files, noise or generated (default: {})", defaults.haystack),
      cxxopts::value<std::vector<std::string>>(),
      "FILE")("template", "wrap prompts as a chat: llama-2, llama-3, mistral, vicuna, alpaca, longlora",
              cxxopts::value<std::string>()->default_value("none"),
              "NAME")("seed", "of keys, texts and places", cxxopts::value<uint64_t>()->default_value(defaults.seed),
                      "N")("beyond", "allow lengths beyond what the model's RoPE settings cover")(
      "out", "folder for a file a cell, results.json and heatmap.svg; the same command goes on where it was",
      cxxopts::value<std::string>(),
      "DIR")("json", "write the results as JSON; - for standard output", cxxopts::value<std::string>(), "FILE|-");
}

std::vector<double> parse_depths(const std::string& text) {
  std::vector<double> depths;
  const char* at = text.data();
  const char* end = text.data() + text.size();
  const auto bad = [&]() { usage_error("--depths {}: give how many (5), or percents such as 10,50,90", text); };
  while (true) {
    double percent = 0;
    const auto [next, fault] = std::from_chars(at, end, percent);
    constexpr double kMost = 1000;
    if (fault != std::errc() || !(percent >= 0 && percent <= kMost) || (next != end && *next != ',')) bad();
    if (next == end && depths.empty()) {  // one number: how many
      const auto n = static_cast<int64_t>(percent);
      if (percent != static_cast<double>(n) || n < 1) bad();
      if (n == 1) return {50};
      for (int64_t i = 0; i < n; ++i)
        depths.push_back(std::round(10000.0 * static_cast<double>(i) / static_cast<double>(n - 1)) / 100);
      return depths;
    }
    if (percent > 100) bad();
    depths.push_back(std::round(percent * 100) / 100);  // as exact as a cell's file name
    if (next == end || next + 1 == end) break;          // "50," is one depth
    at = next + 1;
  }
  std::sort(depths.begin(), depths.end());
  if (std::adjacent_find(depths.begin(), depths.end()) != depths.end())
    usage_error("--depths {}: a depth is given twice", text);
  return depths;
}

GridArguments grid_arguments(const cxxopts::ParseResult& arguments, const std::string& verb) {
  if (!arguments.unmatched().empty())
    usage_error("{0}: '{1}' belongs to no option; 'longlora help {0}' shows them", verb, arguments.unmatched().front());
  (void)required(arguments, verb, "model");
  GridArguments given;
  given.model = model_options(arguments);
  given.grid.lengths = parse_list("lengths", required(arguments, verb, "lengths"), 1);
  std::sort(given.grid.lengths.begin(), given.grid.lengths.end());
  if (std::adjacent_find(given.grid.lengths.begin(), given.grid.lengths.end()) != given.grid.lengths.end())
    usage_error("--lengths {}: a length is given twice", arguments["lengths"].as<std::string>());
  if (given.grid.lengths.back() > kLongest)
    usage_error("--lengths {}: {} tokens are the most", given.grid.lengths.back(), kLongest);
  given.grid.trials = arguments["trials"].as<int64_t>();
  if (given.grid.trials < 1) usage_error("--trials must be at least 1");
  given.beyond = arguments.count("beyond") > 0;
  if (arguments.count("out") > 0) given.grid.out = arguments["out"].as<std::string>();
  given.json = output_file(arguments, "json").value_or("");
  given.seed = arguments["seed"].as<uint64_t>();
  const std::string format = arguments["template"].as<std::string>();
  if (format != "none") given.format = text::chat_format(format);
  if (arguments.count("haystack") > 0) {
    given.haystack = arguments["haystack"].as<std::vector<std::string>>();
    const bool named = given.haystack.front() == "noise" || given.haystack.front() == "generated";
    if (!named) (void)data::expand(given.haystack);  // a missing file is found before a large model is loaded
  }
  return given;
}

eval::Haystack open_haystack(const GridArguments& arguments, const std::string& otherwise) {
  const std::vector<std::string> names = arguments.haystack.empty() ? std::vector{otherwise} : arguments.haystack;
  return eval::Haystack::named(names, kHaystackBytes);
}

Exit run_grid_verb(GridArguments& arguments, const std::function<eval::Task(const eval::PromptEncoder&)>& make) {
  eval::GridOptions& grid = arguments.grid;
  if (!grid.out.empty()) arguments.model.compute = begun_with(grid.out / "settings.json", arguments.model.dtype);
  const adapt::OpenedModel opened = adapt::open_model(arguments.model);
  if (opened.tokenizer == nullptr)
    input_error("{}: has no tokenizer (tokenizer.model or tokenizer.json)", arguments.model.model.string());
  grid.model_name = model_name(arguments.model);
  grid.settings = model_identity(arguments.model, *opened.llama);
  grid.settings["tokenizer"] = opened.tokenizer->fingerprint();
  grid.settings["template"] =
      arguments.format ? text::chat_format_names()[static_cast<size_t>(*arguments.format)] : "none";
  grid.check = [&](int64_t tokens) { adapt::check_covered(opened.llama->config(), tokens, arguments.beyond); };
  const eval::PromptEncoder encoder(*opened.tokenizer, arguments.format);
  const eval::Task task = make(encoder);
  grid.stop = opened.stop;
  std::sort(grid.stop.begin(), grid.stop.end());
  grid.stop.erase(std::unique(grid.stop.begin(), grid.stop.end()), grid.stop.end());
  grid.settings["stop"] = grid.stop;
  const std::vector<eval::CellResult> results = eval::run_grid(*opened.llama, opened.tokenizer, task, grid);

  const eval::GridTable table = eval::tabulate(results);
  const std::string json = results_json(arguments, task, results, table, *opened.llama)
                               .dump(2, ' ', false, ordered_json::error_handler_t::replace);
  if (arguments.json != "-") print_table(table);
  if (!grid.out.empty()) {
    write_file_atomically(grid.out / "results.json", json + "\n");
    write_file_atomically(
        grid.out / "heatmap.svg",
        eval::heatmap_svg(table, fmt::format("{}: {}", task.name, grid.model_name),
                          fmt::format("mean score, {} prompt{} a {}", grid.trials, grid.trials == 1 ? "" : "s",
                                      depths_named(arguments, task) ? "cell" : "length")));
    log::info("{0}/results.json, {0}/heatmap.svg", grid.out.string());
  }
  if (!arguments.json.empty()) write_result(arguments.json, json);
  return Exit::done;
}

}  // namespace longlora::cmd

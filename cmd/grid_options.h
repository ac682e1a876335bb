// What eval-passkey, eval-needle and eval-retrieval share: their grid's options, running it, and showing what came out.
#pragma once
#include "cmd/model_options.h"
#include "core/eval/grid.h"
#include "core/eval/tasks/haystack.h"

namespace longlora::cmd {

struct GridDefaults {
  const char* depths = nullptr;  // null: the verb has no --depths; else what its help says of the default
  const char* trials = "1";
  const char* seed = "42";
  const char* haystack = nullptr;  // what --haystack's help says of its default
};

void declare_grid_options(cxxopts::Options& options, const GridDefaults& defaults);

// The options' values, checked; exit 2 otherwise. No file is opened.
struct GridArguments {
  adapt::OpenOptions model;
  eval::GridOptions grid;
  std::optional<text::ChatFormat> format;
  std::vector<std::string> haystack;  // as given; empty: the verb's default
  std::string json;
  uint64_t seed = 0;
  bool beyond = false;
};
[[nodiscard]] GridArguments grid_arguments(const cxxopts::ParseResult& arguments, const std::string& verb);

// The text to hide in: what was given, or `otherwise`.
[[nodiscard]] eval::Haystack open_haystack(const GridArguments& arguments, const std::string& otherwise);

// "5" -> 0, 25, 50, 75, 100; "1" -> 50; "10,50,90" -> these; percent. Exit 2 for anything else.
[[nodiscard]] std::vector<double> parse_depths(const std::string& text);

// Opens the model, runs the task that `make` gives over the grid, prints the table, and writes --json and the folder's
// results.json and heatmap.svg.
[[nodiscard]] Exit run_grid_verb(GridArguments& arguments,
                                 const std::function<eval::Task(const eval::PromptEncoder&)>& make);

}  // namespace longlora::cmd

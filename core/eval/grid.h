// Runs a retrieval task over a grid of lengths, depths and trials: for each cell one prompt, a greedy answer and its score.
// With a folder every cell is a file of its own, written whole, so that a run that was stopped goes on where it was.
#pragma once
#include "core/base/file.h"
#include "core/eval/tasks/task.h"
#include "core/model/llama.h"

namespace longlora::eval {

struct GridOptions {
  std::vector<int64_t> lengths;
  std::vector<double> depths;  // percent; empty: the task draws the places
  int64_t trials = 1;
  fs::path out;                     // empty: nothing is kept
  std::string model_name;           // in the cells' files and their names
  nlohmann::ordered_json settings;  // beside the task's: the model, the template
  std::vector<int32_t> stop;        // tokens that end an answer
  // Called with every length, and with each prompt's and its answer's tokens before they are computed; throws where the model cannot take so many.
  std::function<void(int64_t tokens)> check = [](int64_t) {};
};

struct CellResult {
  Cell cell;
  double depth = -1;  // where the answer stood, also when the task drew the place
  double score = 0;   // between 0 and 1
  double forced = 0;  // share of the answer's tokens that are the likeliest, given the prompt and those before them
  int64_t prompt_tokens = 0;
  std::string response;
};

// The grid's cells: by length, then depth, then trial.
[[nodiscard]] std::vector<Cell> cells_of(const GridOptions& options);

// A cell's file in the folder: results/MODEL_len_L_depth_D_version_V_results.json, D in hundredths of a percent as the
// needle test writes it ("any" where the task draws the place), V the trial counted from 1.
[[nodiscard]] fs::path cell_file(const GridOptions& options, const Cell& cell);

// A greedy answer to the sample's prompt, and the teacher-forced accuracy of its own answer, from one prefill.
struct Answered {
  std::vector<int32_t> tokens;
  double forced = 0;
};
[[nodiscard]] Answered answer(const model::Llama& llama, const Sample& sample, std::span<const int32_t> stop);

// Exit 2 when the folder has cells of other settings (settings.json there, which is then left as it is). Every length's
// first prompt is made and checked before any is computed. Exit 75 on a signal.
[[nodiscard]] std::vector<CellResult> run_grid(const model::Llama& llama,
                                               const std::shared_ptr<const text::Tokenizer>& tokenizer,
                                               const Task& task, const GridOptions& options);

// Means of the cells: rows are depths (or fifths of the text where the task drew the places, or one row), columns lengths.
struct GridTable {
  std::vector<int64_t> lengths;
  std::vector<std::string> rows;
  std::vector<std::vector<double>> score, forced;  // [row][column]; NaN without a cell
  std::vector<double> mean_score, mean_forced;     // [column], over all cells of the length
  std::vector<int64_t> cells, mean_tokens;         // [column]: how many, and of their prompts
};
[[nodiscard]] GridTable tabulate(std::span<const CellResult> results);

}  // namespace longlora::eval

// `longlora eval-retrieval`: LongEval's and RULER's retrieval tasks.
#include <fmt/ranges.h>
#include <algorithm>

#include "cmd/grid_options.h"
#include "core/base/nearest.h"
#include "core/eval/tasks/longchat.h"
#include "core/eval/tasks/ruler.h"

namespace longlora::cmd {
namespace {

const std::vector<std::string>& task_names() {
  static const std::vector<std::string> names = {"topics",
                                                 "lines",
                                                 "niah_single",
                                                 "niah_single_1",
                                                 "niah_single_2",
                                                 "niah_single_3",
                                                 "niah_multikey",
                                                 "niah_multikey_1",
                                                 "niah_multikey_2",
                                                 "niah_multikey_3",
                                                 "niah_multivalue",
                                                 "niah_multiquery",
                                                 "vt",
                                                 "cwe",
                                                 "fwe"};
  return names;
}

void declare(cxxopts::Options& options) {
  options.add_options()("task", "what to retrieve; the tasks are listed below", cxxopts::value<std::string>(), "NAME");
  declare_grid_options(options, {.trials = "5", .seed = "42", .haystack = "generated"});
}

Exit run(const cxxopts::ParseResult& parsed) {
  GridArguments arguments = grid_arguments(parsed, "eval-retrieval");
  const std::string name = required(parsed, "eval-retrieval", "task");
  if (std::find(task_names().begin(), task_names().end(), name) == task_names().end())
    usage_error("--task {}: no such task{} (known: {})", name, did_you_mean(name, task_names()),
                fmt::join(task_names(), ", "));
  const auto niah = eval::niah_options(name);
  if (!arguments.haystack.empty() && (!niah || niah->needles_around || name == "niah_single_1"))
    usage_error("eval-retrieval: {} has its own text; --haystack goes with the niah tasks in prose", name);
  const eval::Haystack haystack = open_haystack(arguments, name == "niah_single_1" ? "noise" : "generated");
  return run_grid_verb(arguments, [&](const eval::PromptEncoder& encoder) {
    if (name == "lines") return eval::lines_task(arguments.seed, encoder);
    if (name == "topics") return eval::topics_task(arguments.seed, encoder);
    if (name == "vt") return eval::vt_task(arguments.seed, encoder);
    if (name == "cwe") return eval::cwe_task(arguments.seed, encoder);
    if (name == "fwe") return eval::fwe_task(arguments.seed, encoder);
    return eval::niah_task(name, *niah, arguments.seed, encoder, haystack);
  });
}

}  // namespace

Verb eval_retrieval_verb() {
  return {"eval-retrieval",
          "retrieval tasks without a judge: LongEval's topics and lines, RULER's niah, vt, cwe, fwe",
          "--model DIR --task NAME --lengths N[,N...]",
          "  lines            the value on one of many lines          topics           the first of many topics\n"
          "  niah_single      one number in prose (niah_single_1: in noise, _2: in prose, _3: a uuid)\n"
          "  niah_multikey    one of four numbers (niah_multikey_1; _2, _3: among needles alone, numbers or uuids)\n"
          "  niah_multivalue  four numbers under one key              niah_multiquery  four numbers under four keys\n"
          "  vt               all names of a value                    cwe, fwe         the commonest of many words\n"
          "Prompts and scores are the published ones, words and texts the program's own. Example:\n"
          "  longlora eval-retrieval --model Llama-2-7b-32k --task niah_multikey --lengths "
          "4096,16384,32768 --trials 20 \\\n"
          "    --out runs/7b-32k/niah_multikey",
          declare,
          run};
}

}  // namespace longlora::cmd

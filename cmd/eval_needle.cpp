// `longlora eval-needle`: a needle in a haystack over lengths and depths.
#include "cmd/grid_options.h"
#include "core/eval/tasks/needle.h"

namespace longlora::cmd {
namespace {

void declare(cxxopts::Options& options) {
  declare_grid_options(options, {.depths = "5", .trials = "1", .seed = "42", .haystack = "generated"});
  const eval::NeedleOptions usual;
  options.add_options()("needle", "the sentence to hide (default: what to do in San Francisco)",
                        cxxopts::value<std::string>(),
                        "TEXT")("question", "what is asked about it", cxxopts::value<std::string>(), "TEXT")(
      "answer", "what the score looks for in the response", cxxopts::value<std::string>(), "TEXT")(
      "max-new-tokens", "how long a response may be",
      cxxopts::value<int64_t>()->default_value(std::to_string(usual.max_new_tokens)), "N");
}

Exit run(const cxxopts::ParseResult& parsed) {
  GridArguments arguments = grid_arguments(parsed, "eval-needle");
  arguments.grid.depths = parse_depths(parsed.count("depths") > 0 ? parsed["depths"].as<std::string>() : "5");
  eval::NeedleOptions options;
  options.seed = arguments.seed;
  options.max_new_tokens = parsed["max-new-tokens"].as<int64_t>();
  if (options.max_new_tokens < 1) usage_error("--max-new-tokens must be at least 1");
  const size_t texts = parsed.count("needle") + parsed.count("question") + parsed.count("answer");
  if (texts != 0 && texts != 3)
    usage_error("eval-needle: --needle, --question and --answer belong together; give all three or none");
  if (texts == 3) {
    options.needle = "\n" + parsed["needle"].as<std::string>() + "\n";
    options.question = parsed["question"].as<std::string>();
    options.answer = parsed["answer"].as<std::string>();
    if (options.answer.find_first_not_of(" \n\t") == std::string::npos) usage_error("--answer: is empty");
  }
  const eval::Haystack haystack = open_haystack(arguments, "generated");
  return run_grid_verb(
      arguments, [&](const eval::PromptEncoder& encoder) { return eval::needle_task(options, encoder, haystack); });
}

}  // namespace

Verb eval_needle_verb() {
  return {"eval-needle",
          "finds a sentence hidden in a long text: needle in a haystack",
          "--model DIR --lengths N[,N...]",
          "The needle stands between two sentences of the text at each depth. "
          "The score is the share of the answer's words\n"
          "in the response, without a judge; beside it the share of the answer's tokens that the model puts first.\n"
          "Example:\n"
          "  longlora eval-needle --model Llama-2-7b-hf --adapter runs/7b-32k/final --lengths 4096,16384,32768 \\\n"
          "    --depths 11 --haystack 'books/*.txt' --out runs/7b-32k/needle",
          declare,
          run};
}

}  // namespace longlora::cmd

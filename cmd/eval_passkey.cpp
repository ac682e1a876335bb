// `longlora eval-passkey`: whether a number hidden in a long text is found.
#include "cmd/grid_options.h"
#include "core/eval/tasks/passkey.h"

namespace longlora::cmd {
namespace {

void declare(cxxopts::Options& options) {
  declare_grid_options(
      options, {.depths = "5 with --exact, else places are drawn", .trials = "10", .seed = "0", .haystack = "noise"});
  options.add_options()("exact", "prompts of exactly the length asked for, five-digit keys, depths between sentences");
}

Exit run(const cxxopts::ParseResult& parsed) {
  GridArguments arguments = grid_arguments(parsed, "eval-passkey");
  const eval::PasskeyOptions options{.exact = parsed.count("exact") > 0, .seed = arguments.seed};
  if (!options.exact && !arguments.haystack.empty())
    usage_error("eval-passkey: LongLoRA's protocol has its own text; --haystack goes with --exact");
  if (parsed.count("depths") > 0 || options.exact)
    arguments.grid.depths = parse_depths(parsed.count("depths") > 0 ? parsed["depths"].as<std::string>() : "5");
  const eval::Haystack haystack = open_haystack(arguments, "noise");
  return run_grid_verb(
      arguments, [&](const eval::PromptEncoder& encoder) { return eval::passkey_task(options, encoder, haystack); });
}

}  // namespace

Verb eval_passkey_verb() {
  return {
      "eval-passkey",
      "finds a number hidden in a long text: the passkey test",
      "--model DIR --lengths N[,N...]",
      "The default is LongLoRA's protocol: 10 trials a length with keys and places as its script draws them, the text\n"
      "cut by characters, so that a length is nominal (3.75 characters a token); --depths puts the key at given "
      "depths\n"
      "instead. With --exact prompt and answer have exactly the length asked for, at 5 depths unless --depths is "
      "given.\n"
      "Example:\n"
      "  longlora eval-passkey --model Llama-2-7b-hf --adapter runs/7b-32k/final --lengths 8192,16384,32768 --exact "
      "\\\n"
      "    --out runs/7b-32k/passkey",
      declare,
      run};
}

}  // namespace longlora::cmd

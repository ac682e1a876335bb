// `longlora merge`: a base model and its adapters into one model.
#include "core/adapt/merge.h"
#include "core/adapt/portable.h"

#include "cmd/verb.h"
#include "core/base/progress.h"

namespace longlora::cmd {
namespace {

constexpr int64_t kMegabyte = 1'000'000;

Exit run_portable(const adapt::MergeOptions& options) {
  const adapt::PortableReport report = adapt::write_portable(options);
  fmt::print("{}: an adapter of rank {} for {} modules, alpha {}\n", options.out.string(), report.rank, report.modules,
             report.rank);
  for (const std::string& what : report.left_out) fmt::print("left out: {}\n", what);
  if (!report.left_out.empty())
    fmt::print("Without these it is another model than the adapters make; merge without --portable keeps them.\n");
  if (!report.rope.empty()) fmt::print("RoPE that the server must be given with the base: {}\n", report.rope);
  return Exit::done;
}

Exit run(const cxxopts::ParseResult& arguments) {
  if (!arguments.unmatched().empty()) {
    usage_error("merge: '{}' belongs to no option; 'longlora help merge' shows them", arguments.unmatched().front());
  }
  adapt::MergeOptions options;
  for (const char* needed : {"model", "adapter", "out"}) {
    if (arguments.count(needed) == 0)
      usage_error("merge: --{} is missing; 'longlora help merge' shows the options", needed);
  }
  options.model = arguments["model"].as<std::string>();
  for (const auto& folder : arguments["adapter"].as<std::vector<std::string>>()) options.adapters.emplace_back(folder);
  options.out = arguments["out"].as<std::string>();
  options.overwrite = arguments["overwrite"].as<bool>();
  if (arguments.count("dtype") > 0) {
    const std::string dtype = arguments["dtype"].as<std::string>();
    if (dtype != "float32" && dtype != "bfloat16" && dtype != "float16") {
      usage_error("merge: --dtype '{}' is none of float32, bfloat16, float16", dtype);
    }
    options.dtype = io::dtype_of_torch(dtype);
  }
  if (arguments.count("portable") > 0) {
    if (options.dtype) usage_error("merge: --dtype has no meaning with --portable, which writes float32");
    return run_portable(options);
  }
  Progress progress("merging", 0, "MB");
  const adapt::MergeReport report = adapt::merge(options, [&](int64_t done, int64_t total) {
    progress.update(done / kMegabyte, fmt::format("of {}", total / kMegabyte));
  });
  progress.finish();
  fmt::print("{}: {} tensors, {}; {} with LoRA added, {} replaced\ncontext: {}\n", options.out.string(), report.tensors,
             format_bytes(static_cast<double>(report.bytes)), report.low_rank, report.replaced, report.context);
  return Exit::done;
}

}  // namespace

Verb merge_verb() {
  return {
      "merge",
      "a base model and its adapters into one model",
      "--model DIR --adapter DIR [--adapter DIR ...] --out DIR",
      "LoRA is added in float32 and rounded once; embeddings and norms that were trained whole replace the base's.\n"
      "The context settings of the adapter (longlora.json) go into config.json. The output folder appears complete\n"
      "or not at all.\n\n"
      "--portable writes the sum of the adapters as one adapter of a single rank with alpha = rank, LoRA on attention\n"
      "and MLP alone, and says what that leaves out.\n\n"
      "  longlora merge --model Llama-2-7b-hf --adapter runs/7b-32k/final --out Llama-2-7b-32k",
      [](cxxopts::Options& options) {
        options.add_options()("model", "folder of the base model", cxxopts::value<std::string>(), "DIR")(
            "adapter", "adapter folder; several are added up", cxxopts::value<std::vector<std::string>>(), "DIR")(
            "out", "folder to write", cxxopts::value<std::string>(), "DIR")(
            "dtype", "float32, bfloat16 or float16 (default: as in the base)", cxxopts::value<std::string>(), "TYPE")(
            "overwrite", "replace the output folder if it exists")(
            "portable", "write one adapter instead of a model, as vLLM and llama.cpp take them");
      },
      run};
}

}  // namespace longlora::cmd

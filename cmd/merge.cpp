// `longlora merge`: a base model and its adapters into one model.
#include "core/adapt/merge.h"

#include <charconv>
#include <cmath>

#include "cmd/model_options.h"
#include "core/adapt/portable.h"
#include "core/adapt/verify.h"
#include "core/base/progress.h"
#include "core/base/signal.h"

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

// "runs/a/final" or "runs/a/final=0.5"
adapt::WeightedAdapter parse_adapter(const std::string& text) {
  const size_t equals = text.rfind('=');
  if (equals == std::string::npos || fs::is_directory(text)) return {text, 1};
  double weight = 0;
  const char* end = text.data() + text.size();
  const auto [next, fault] = std::from_chars(text.data() + equals + 1, end, weight);
  if (fault != std::errc() || next != end || !std::isfinite(weight) || weight == 0)
    usage_error("--adapter {}: after the = a weight is needed, a number other than 0", text);
  return {text.substr(0, equals), weight};
}

// "5GB", "500MB"
int64_t parse_size(const std::string& text) {
  int64_t number = 0;
  const char* end = text.data() + text.size();
  const auto [unit, fault] = std::from_chars(text.data(), end, number);
  const std::string_view rest(unit, static_cast<size_t>(end - unit));
  const int64_t scale = rest == "GB" ? 1'000'000'000 : rest == "MB" ? kMegabyte : 0;
  constexpr int64_t kMost = 1'000'000;
  if (fault != std::errc() || scale == 0 || number < 1 || number > kMost)
    usage_error("--max-shard-size {}: give a whole number of MB or GB, such as 5GB", text);
  return number * scale;
}

io::Vocabulary parse_embed(const std::string& text) {
  if (text == "skip") return io::Vocabulary::skip;
  if (text == "replace") return io::Vocabulary::whole;
  if (text == "overlap") return io::Vocabulary::overlap;
  usage_error("--embed '{}' is none of skip, replace, overlap", text);
}

Exit run(const cxxopts::ParseResult& arguments) {
  ignore_closed_pipes();
  if (!arguments.unmatched().empty()) {
    usage_error("merge: '{}' belongs to no option; 'longlora help merge' shows them", arguments.unmatched().front());
  }
  adapt::MergeOptions options;
  options.model = required(arguments, "merge", "model");
  if (arguments.count("adapter") == 0)
    usage_error("merge: --adapter is needed; 'longlora help merge' shows the options");
  for (const auto& text : arguments["adapter"].as<std::vector<std::string>>())
    options.adapters.push_back(parse_adapter(text));
  options.out = required(arguments, "merge", "out");
  options.overwrite = arguments["overwrite"].as<bool>();
  options.max_shard_bytes = parse_size(arguments["max-shard-size"].as<std::string>());
  if (arguments.count("embed") > 0) options.embed = parse_embed(arguments["embed"].as<std::string>());
  if (arguments.count("dtype") > 0) {
    const std::string dtype = arguments["dtype"].as<std::string>();
    if (dtype != "float32" && dtype != "bfloat16" && dtype != "float16") {
      usage_error("merge: --dtype '{}' is none of float32, bfloat16, float16", dtype);
    }
    options.dtype = io::dtype_of_torch(dtype);
  }
  if (arguments.count("portable") > 0) {
    for (const char* meaningless : {"dtype", "embed", "no-verify"}) {
      if (arguments.count(meaningless) > 0) usage_error("merge: --{} has no meaning with --portable", meaningless);
    }
    return run_portable(options);
  }
  say_on_stop("finishing up: what was written so far is removed");
  std::optional<adapt::Verification> verified;
  if (arguments.count("no-verify") == 0)
    options.check = [&](const fs::path& folder) { verified = adapt::verify_merged(options, folder); };
  Progress progress("merging", 0, "MB");
  const adapt::MergeReport report = adapt::merge(options, [&](int64_t done, int64_t total) {
    progress.update(done / kMegabyte, fmt::format("of {}", total / kMegabyte));
  });
  progress.finish();
  fmt::print("{}: {} tensors, {}; {} with LoRA added, {} replaced\ncontext: {}\n", options.out.string(), report.tensors,
             format_bytes(static_cast<double>(report.bytes)), report.low_rank, report.replaced, report.context);
  for (const std::string& note : report.notes) fmt::print("note: {}\n", note);
  if (!verified) return Exit::done;
  if (!verified->left_out.empty()) {
    fmt::print("not verified: {}\n", verified->left_out);
  } else {
    fmt::print("verified: on {} tokens the logits are those of base + adapter within {:.3g} ({:.2g} of their size)\n",
               verified->tokens, verified->largest, verified->relative);
  }
  return Exit::done;
}

}  // namespace

Verb merge_verb() {
  return {
      "merge",
      "a base model and its adapters into one model",
      "--model DIR --adapter DIR[=WEIGHT] [--adapter DIR ...] --out DIR",
      "LoRA is added and rounded once; embeddings and norms that were trained whole replace the base's.\n"
      "The context settings of the adapter (longlora.json) go into config.json. The output folder appears complete\n"
      "or not at all. Memory does not grow with the model.\n\n"
      "Several adapters are added up, each with its weight: =0.5 adds half of a change, =-1 takes it out again\n"
      "(of weights trained whole only where longlora.json says that this is their base; RoPE settings stay).\n"
      "The model may be another one of the same architecture than the adapter was trained on; --embed then says what\n"
      "becomes of the adapter's embedding and head: skip (the model's own stay), replace, or overlap (the rows that\n"
      "both have).\n\n"
      "What fits into memory is verified before the folder gets its name: base + adapter and the merged model are run\n"
      "on a few lines of text, and the largest difference of a logit is printed.\n\n"
      "--portable writes the sum of the adapters as one adapter of a single rank with alpha = rank, LoRA on attention\n"
      "and MLP alone, and says what that leaves out.\n\n"
      "  longlora merge --model Llama-2-7b-hf --adapter runs/7b-32k/final --out Llama-2-7b-32k\n"
      "  longlora merge --model My-Llama-3-8b --adapter gradient-1048k-lora --embed skip --out My-Llama-3-8b-1048k",
      [](cxxopts::Options& options) {
        options.add_options()("model", "folder of the base model", cxxopts::value<std::string>(), "DIR")(
            "adapter", "adapter folder, with a weight where it is not 1; several are added up",
            cxxopts::value<std::vector<std::string>>(),
            "DIR[=WEIGHT]")("out", "folder to write", cxxopts::value<std::string>(), "DIR")(
            "dtype", "float32, bfloat16 or float16 (default: as in the base)", cxxopts::value<std::string>(), "TYPE")(
            "max-shard-size", "largest file of weights", cxxopts::value<std::string>()->default_value("5GB"), "N")(
            "embed", "an adapter's embedding and head: skip, replace or overlap", cxxopts::value<std::string>(), "HOW")(
            "no-verify", "do not run the merged model")("overwrite", "replace the output folder if it exists")(
            "portable", "write one adapter instead of a model, as vLLM and llama.cpp take them");
      },
      run};
}

}  // namespace longlora::cmd

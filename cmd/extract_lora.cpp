// `longlora extract-lora`: what a fine-tune changed, as an adapter.
#include <optional>

#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "cmd/model_options.h"
#include "core/adapt/extract.h"
#include "core/base/progress.h"
#include "core/base/signal.h"

namespace longlora::cmd {
namespace {

constexpr int64_t kMillion = 1'000'000;

void declare(cxxopts::Options& options) {
  using cxxopts::value;
  options.add_options()("base", "folder of the model before the fine-tune", value<std::string>(), "DIR")(
      "tuned", "folder of the model after it", value<std::string>(), "DIR")(
      "out", "adapter folder to write", value<std::string>(), "DIR")("rank", "the same rank for every matrix",
                                                                     value<int64_t>(), "R")(
      "energy", "per matrix the least rank that keeps this share of the squared Frobenius norm: 0.95", value<double>(),
      "SHARE")("error", "per matrix the least rank with |D - BA| / |D| at most this (Frobenius norms): 0.1",
               value<double>(),
               "E")("max-rank", "highest rank that --energy and --error may choose", value<int64_t>(), "R")(
      "portable", "one rank for all, attention and MLP alone, as vLLM and llama.cpp take it")(
      "targets",
      "linear modules by name or pattern: q_proj,v_proj or layers.*.mlp.*; several times or with commas "
      "(default: all of attention and MLP)",
      value<std::vector<std::string>>(),
      "NAMES")("embed", "embedding and lm_head where they differ: whole, lora or skip",
               value<std::string>()->default_value("whole"), "HOW")(
      "norms", "norms where they differ: whole or skip", value<std::string>()->default_value("whole"), "HOW")(
      "dtype", "of the factors: float32, bfloat16 or float16", value<std::string>()->default_value("float32"), "TYPE")(
      "seed", "of the random sketches", value<uint64_t>()->default_value("42"), "N")(
      "overwrite", "replace the output folder if it exists")("json", "write the table as JSON; - for standard output",
                                                             value<std::string>(), "FILE|-");
}

adapt::SvdGoal goal_of(const cxxopts::ParseResult& arguments) {
  const auto given = [&](const char* name) { return arguments.count(name) > 0; };
  if (given("rank") + given("energy") + given("error") != 1)
    usage_error("extract-lora: give exactly one of --rank, --energy and --error");
  adapt::SvdGoal goal;
  if (given("rank")) {
    if (given("max-rank"))
      usage_error("extract-lora: --max-rank goes with --energy or --error; --rank is the rank itself");
    goal.max_rank = arguments["rank"].as<int64_t>();
    if (goal.max_rank < 1) usage_error("--rank {}: at least 1 is needed", goal.max_rank);
    return goal;
  }
  const char* which = given("energy") ? "energy" : "error";
  const double share = arguments[which].as<double>();
  if (!(share > 0 && share < 1)) usage_error("--{} {}: give a number between 0 and 1", which, share);
  goal.loss = given("energy") ? 1 - share : share * share;
  if (goal.loss < 1e-12) usage_error("--{} {}: is finer than float32 can hold", which, share);
  if (!given("max-rank")) return goal;
  goal.max_rank = arguments["max-rank"].as<int64_t>();
  if (goal.max_rank < 1) usage_error("--max-rank {}: at least 1 is needed", goal.max_rank);
  return goal;
}

std::string one_of(const cxxopts::ParseResult& arguments, const char* option, const std::vector<std::string>& choices) {
  const std::string text = arguments[option].as<std::string>();
  for (const std::string& choice : choices) {
    if (text == choice) return text;
  }
  usage_error("extract-lora: --{} '{}' is none of {}", option, text, fmt::join(choices, ", "));
}

std::vector<std::string> targets_of(const cxxopts::ParseResult& arguments) {
  std::vector<std::string> targets;
  if (arguments.count("targets") == 0) return targets;
  for (const std::string& list : arguments["targets"].as<std::vector<std::string>>()) {
    for (size_t at = 0; at <= list.size();) {
      const size_t end = std::min(list.find(',', at), list.size());
      if (end == at) usage_error("--targets '{}': a name is missing", list);
      targets.push_back(list.substr(at, end - at));
      at = end + 1;
    }
  }
  return targets;
}

adapt::ExtractOptions options_of(const cxxopts::ParseResult& arguments) {
  if (!arguments.unmatched().empty())
    usage_error("extract-lora: '{}' belongs to no option; 'longlora help extract-lora' shows them",
                arguments.unmatched().front());
  adapt::ExtractOptions options{.base = required(arguments, "extract-lora", "base"),
                                .tuned = required(arguments, "extract-lora", "tuned"),
                                .out = required(arguments, "extract-lora", "out")};
  options.goal = goal_of(arguments);
  options.portable = arguments.count("portable") > 0;
  options.targets = targets_of(arguments);
  const std::string embed = one_of(arguments, "embed", {"whole", "lora", "skip"});
  options.embed = embed == "whole"  ? adapt::ExtractEmbed::whole
                  : embed == "lora" ? adapt::ExtractEmbed::lora
                                    : adapt::ExtractEmbed::skip;
  options.norms = one_of(arguments, "norms", {"whole", "skip"}) == "whole";
  for (const char* what : {"embed", "norms"}) {
    if (options.portable && arguments.count(what) > 0 && arguments[what].as<std::string>() != "skip")
      usage_error("extract-lora: --portable leaves embedding and norms out; without it --{} has a meaning", what);
  }
  options.dtype = *io::dtype_of_torch(one_of(arguments, "dtype", {"float32", "bfloat16", "float16"}));
  options.seed = arguments["seed"].as<uint64_t>();
  options.overwrite = arguments.count("overwrite") > 0;
  return options;
}

double share_kept(double norm, double residual) {
  return norm > 0 ? 1 - residual * residual / (norm * norm) : 1;
}
double relative(double norm, double residual) {
  return norm > 0 ? residual / norm : 0;
}

struct Total {
  int64_t same = 0, limited = 0, ranks = 0;
};

Total total_of(const adapt::ExtractReport& report, const adapt::SvdGoal& goal) {
  Total total;
  for (const adapt::ExtractedMatrix& m : report.matrices) {
    total.same += m.rank == 0;
    total.ranks += m.rank;
    const bool limit = goal.loss > 0 && m.rank == goal.max_rank;
    total.limited += limit && m.residual * m.residual > goal.loss * m.norm * m.norm;
  }
  return total;
}

nlohmann::ordered_json to_json(const adapt::ExtractReport& report, const Total& total) {
  nlohmann::ordered_json matrices = nlohmann::ordered_json::array();
  for (const adapt::ExtractedMatrix& m : report.matrices) {
    matrices.push_back({{"module", m.module},
                        {"shape", m.shape},
                        {"rank", m.rank},
                        {"norm", m.norm},
                        {"residual", relative(m.norm, m.residual)},
                        {"energy", share_kept(m.norm, m.residual)},
                        {"exact", m.exact}});
  }
  return {{"matrices", matrices},
          {"rank", report.rank},
          {"norm", report.norm},
          {"residual", relative(report.norm, report.residual)},
          {"energy", share_kept(report.norm, report.residual)},
          {"unchanged", total.same},
          {"at_max_rank", total.limited},
          {"parameters", report.parameters},
          {"bytes", report.bytes},
          {"whole", report.whole},
          {"left_out", report.left_out},
          {"notes", report.notes},
          {"context", report.context}};
}

void print(const adapt::ExtractReport& report, const Total& total, const adapt::ExtractOptions& options) {
  size_t width = 6;
  for (const adapt::ExtractedMatrix& m : report.matrices) width = std::max(width, m.module.size());
  fmt::print("{:<{}}  {:>13}  {:>5}  {:>10}  {:>9}  {:>11}\n", "matrix", width, "shape", "rank", "|D|", "residual",
             "energy kept");
  const auto row = [&](const std::string& name, const std::string& shape, int64_t rank, double norm, double residual) {
    fmt::print("{:<{}}  {:>13}  {:>5}  {:>10.4g}  {:>9.6f}  {:>10.4f}%\n", name, width, shape, rank, norm,
               relative(norm, residual), 100 * share_kept(norm, residual));
  };
  for (const adapt::ExtractedMatrix& m : report.matrices)
    row(m.module, fmt::format("{} x {}", m.shape[0], m.shape[1]), m.rank, m.norm, m.residual);
  row("total", "", total.ranks, report.norm, report.residual);
  fmt::print(
      "\n{}: {}, {} parameters, {}\n", options.out.string(),
      options.portable ? fmt::format("rank {} everywhere", report.rank) : fmt::format("ranks up to {}", report.rank),
      format_count(static_cast<double>(report.parameters)), format_bytes(static_cast<double>(report.bytes)));
  if (total.same > 0) fmt::print("without a difference: {} of {} matrices\n", total.same, report.matrices.size());
  if (total.limited > 0)
    fmt::print("at --max-rank {} before the goal was met: {} matrices\n", options.goal.max_rank, total.limited);
  if (!report.whole.empty()) fmt::print("whole, as in the tuned model: {} tensors\n", report.whole.size());
  for (const std::string& what : report.left_out) fmt::print("left out: {}\n", what);
  if (!report.left_out.empty()) fmt::print("Without these the adapter does not make the tuned model.\n");
  for (const std::string& note : report.notes) fmt::print("note: {}\n", note);
  fmt::print("context: {}\n", report.context);
}

Exit run(const cxxopts::ParseResult& arguments) {
  ignore_closed_pipes();
  const adapt::ExtractOptions options = options_of(arguments);
  const auto json = output_file(arguments, "json");
  std::optional<Progress> progress;
  const adapt::ExtractReport report =
      adapt::extract(options, [&](int64_t done, int64_t total, const std::string& module) {
        if (!progress) progress.emplace("extracting", total / kMillion, "M weights");
        progress->update(done / kMillion, module);
      });
  if (progress)
    progress->finish(report.resumed > 0 ? fmt::format("{} matrices were finished before", report.resumed) : "");
  const Total total = total_of(report, options.goal);
  if (json != "-") print(report, total, options);
  if (json) write_result(*json, to_json(report, total).dump(2));
  return Exit::done;
}

}  // namespace

Verb extract_lora_verb() {
  return {
      "extract-lora",
      "what a fine-tune changed, as an adapter for the base",
      "--base DIR --tuned DIR --out DIR --rank R",
      "For every matrix D = tuned - base, in float32, the best product B A of its rank: --rank R the same for all,\n"
      "--energy 0.95 the least rank that keeps 95 % of the sum of D's squared elements, --error 0.1 the least with a\n"
      "residual |D - BA| of at most 0.1 |D| (--error E is --energy 1-E*E). "
      "The residuals in the table are those of the\n"
      "factors as written. Embedding, lm_head and norms that differ are stored whole. RoPE and context settings go\n"
      "into longlora.json, and 'longlora merge' restores them.\n\n"
      "Stopped or killed, the same command goes on after the last finished matrix; until the adapter is complete\n"
      "they are in .NAME.extract beside the output.\n\n"
      "  longlora extract-lora --base Meta-Llama-3-8B --tuned Llama-3-8B-Gradient-1048k --out gradient-1m --rank 64",
      declare,
      run};
}

}  // namespace longlora::cmd

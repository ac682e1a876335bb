// `longlora generate`: text from a model, streamed.
#include <chrono>
#include <nlohmann/json.hpp>

#include "cmd/model_options.h"
#include "core/base/file.h"
#include "core/base/signal.h"
#include "core/eval/generate.h"
#include "core/text/stream_decoder.h"

namespace longlora::cmd {
namespace {

void declare(cxxopts::Options& options) {
  declare_model_options(options);
  options.add_options()("prompt", "the text to go on from", cxxopts::value<std::string>(), "TEXT")(
      "prompt-file", "a file with that text", cxxopts::value<std::string>(), "FILE")(
      "max-new-tokens", "at most so many new tokens", cxxopts::value<int64_t>()->default_value("128"), "N")(
      "temperature", "0: always the likeliest token", cxxopts::value<double>()->default_value("0"), "T")(
      "top-p", "sample from the smallest set of tokens with this probability",
      cxxopts::value<double>()->default_value("1"),
      "P")("top-k", "sample from the K likeliest tokens; 0: all", cxxopts::value<int64_t>()->default_value("0"), "K")(
      "seed", "of the sampling", cxxopts::value<uint64_t>()->default_value("42"), "N")(
      "beyond", "allow more tokens than the model's RoPE settings cover")(
      "json", "write the result as JSON; - for standard output", cxxopts::value<std::string>(), "FILE|-");
}

std::vector<int32_t> prompt_tokens(const cxxopts::ParseResult& arguments, const text::Tokenizer& tokenizer) {
  if (arguments.count("prompt") + arguments.count("prompt-file") != 1)
    usage_error("generate: give one of --prompt and --prompt-file");
  const std::string prompt = arguments.count("prompt") > 0 ? arguments["prompt"].as<std::string>()
                                                           : read_file(arguments["prompt-file"].as<std::string>());
  std::vector<int32_t> tokens = tokenizer.encode(prompt);
  if (tokenizer.adds_bos() && tokenizer.bos()) tokens.insert(tokens.begin(), *tokenizer.bos());
  return tokens;
}

Exit run(const cxxopts::ParseResult& arguments) {
  if (!arguments.unmatched().empty())
    usage_error("generate: '{}' belongs to no option; 'longlora help generate' shows them",
                arguments.unmatched().front());
  (void)required(arguments, "generate", "model");
  const eval::GenerateOptions options{.max_new_tokens = arguments["max-new-tokens"].as<int64_t>(),
                                      .temperature = arguments["temperature"].as<double>(),
                                      .top_p = arguments["top-p"].as<double>(),
                                      .top_k = arguments["top-k"].as<int64_t>(),
                                      .seed = arguments["seed"].as<uint64_t>()};
  constexpr int64_t kMost = 100'000'000;
  if (options.max_new_tokens < 1 || options.max_new_tokens > kMost)
    usage_error("--max-new-tokens must lie between 1 and {}", kMost);
  if (options.temperature < 0 || options.top_p <= 0 || options.top_p > 1 || options.top_k < 0) {
    usage_error("--temperature must not be negative, --top-p lie in (0, 1], --top-k not be negative");
  }
  const auto json = output_file(arguments, "json");
  const adapt::OpenedModel opened = adapt::open_model(model_options(arguments));
  if (opened.tokenizer == nullptr)
    input_error("{}: has no tokenizer (tokenizer.model or tokenizer.json)", arguments["model"].as<std::string>());
  const text::Tokenizer& tokenizer = *opened.tokenizer;
  const std::vector<int32_t> prompt = prompt_tokens(arguments, tokenizer);
  const model::Config& config = opened.llama->config();
  adapt::check_covered(config, static_cast<int64_t>(prompt.size()) + options.max_new_tokens,
                       arguments.count("beyond") > 0);

  const bool quiet = json == "-";
  text::StreamDecoder decoder(opened.tokenizer);
  (void)decoder.push(prompt);  // how a token reads may depend on what stands before it
  std::string text;
  const auto show = [&](const std::string& piece) {
    text += piece;
    if (quiet) return;
    fmt::print("{}", piece);
    std::fflush(stdout);
  };
  const auto start = std::chrono::steady_clock::now();
  const std::vector<int32_t> tokens = eval::generate(*opened.llama, prompt, opened.stop, options, [&](int32_t token) {
    show(decoder.push(token));
    return !stop_requested();
  });
  show(decoder.finish());
  if (!quiet) fmt::print("\n");
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (json) {
    const nlohmann::ordered_json result = {{"prompt_tokens", prompt.size()},
                                           {"tokens", tokens},
                                           {"text", text},
                                           {"tokens_per_s", static_cast<double>(tokens.size()) / seconds}};
    write_result(*json, result.dump(2));
  }
  return stop_requested() ? Exit::interrupted : Exit::done;
}

}  // namespace

Verb generate_verb() {
  return {"generate",
          "text from a model, streamed",
          "--model DIR --prompt TEXT",
          "Example: longlora generate --model Llama-2-7b-hf --adapter runs/7b-32k/final --prompt-file book.txt",
          declare,
          run};
}

}  // namespace longlora::cmd

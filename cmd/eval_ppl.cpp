// `longlora eval-ppl`: sliding-window perplexity with full attention.
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "cmd/model_options.h"
#include "core/data/glob.h"
#include "core/eval/perplexity.h"
#include "core/model/device.h"
#include "core/model/tensors.h"

namespace longlora::cmd {
namespace {

void declare(cxxopts::Options& options) {
  declare_model_options(options);
  options.add_options()("data", "text or token file; may be given several times",
                        cxxopts::value<std::vector<std::string>>(), "FILE")(
      "context", "window length in tokens, or several: 2048,4096", cxxopts::value<std::string>(), "N[,N...]")(
      "stride", "tokens from one window to the next; 0: the context", cxxopts::value<int64_t>()->default_value("256"),
      "S")("score", "all (every prediction of every window) or last-stride (each token once)",
           cxxopts::value<std::string>()->default_value("all"),
           "HOW")("max-tokens", "only the first N tokens of each file", cxxopts::value<int64_t>()->default_value("0"),
                  "N")("beyond", "allow contexts beyond what the model's RoPE settings cover")(
      "per-token", "write every scored token's negative log-likelihood, a JSON line a window",
      cxxopts::value<std::string>(),
      "FILE")("json", "write the results as JSON; - for standard output", cxxopts::value<std::string>(), "FILE|-");
}

// One JSON line a window, written as they come.
class PerTokenFile {
 public:
  explicit PerTokenFile(const std::string& path) : path_(path), out_(path) {
    if (!out_) fail("{}: cannot be written", path);
  }
  void write(const std::string& data, int64_t context, int64_t start, const std::vector<float>& nll) {
    out_ << nlohmann::ordered_json({{"data", data}, {"context", context}, {"start", start}, {"nll", nll}}).dump()
         << '\n';
    if (!out_) fail("{}: cannot be written (disk full?)", path_);
  }

 private:
  std::string path_;
  std::ofstream out_;
};

Exit run(const cxxopts::ParseResult& arguments) {
  if (!arguments.unmatched().empty())
    usage_error("eval-ppl: '{}' belongs to no option; 'longlora help eval-ppl' shows them",
                arguments.unmatched().front());
  (void)required(arguments, "eval-ppl", "model");
  const auto contexts = parse_list("context", required(arguments, "eval-ppl", "context"), 2);
  if (arguments.count("data") == 0)
    usage_error("eval-ppl: --data is needed: a text file (.txt, .jsonl, .json, .zst) or a token file (.bin)");
  const std::string score = arguments["score"].as<std::string>();
  if (score != "all" && score != "last-stride") usage_error("--score {}: all or last-stride", score);
  eval::PerplexityOptions options;
  options.stride = arguments["stride"].as<int64_t>();
  options.max_tokens = arguments["max-tokens"].as<int64_t>();
  options.score = score == "all" ? eval::Score::all : eval::Score::last_stride;
  if (options.stride < 0 || options.max_tokens < 0) usage_error("--stride and --max-tokens must not be negative");

  const auto json = output_file(arguments, "json"), per_token_file = output_file(arguments, "per-token");
  const auto files = arguments["data"].as<std::vector<std::string>>();
  (void)data::expand(files);  // a missing file is found before a large model is loaded
  const adapt::OpenedModel opened = adapt::open_model(model_options(arguments));
  const std::string device = model::describe_device(opened.llama->device());
  const model::Config& config = opened.llama->config();
  for (const int64_t context : contexts) adapt::check_covered(config, context, arguments.count("beyond") > 0);
  std::optional<PerTokenFile> per_token;
  if (per_token_file) per_token.emplace(*per_token_file);

  nlohmann::ordered_json results = nlohmann::ordered_json::array();
  for (const std::string& file : files) {
    const data::TokenSource tokens = data::TokenSource::open(
        {.patterns = {file}, .tokenizer = opened.tokenizer.get(), .vocab = config.vocab_size, .cache = {}, .stop = {}});
    for (const int64_t context : contexts) {
      options.context = context;
      const auto each = [&](int64_t start, const std::vector<float>& nll) {
        if (per_token) per_token->write(file, context, start, nll);
      };
      const eval::PerplexityResult r = eval::perplexity(*opened.llama, tokens, options, file, each);
      const int64_t stride = options.stride > 0 ? options.stride : context;
      results.push_back({{"data", file},
                         {"context", context},
                         {"stride", stride},
                         {"windows", r.windows},
                         {"tokens", r.tokens},
                         {"loss", r.loss},
                         {"ppl", std::exp(r.loss)}});
      if (json != "-")
        fmt::print("{}  context {}  windows {}  loss {:.5f}  ppl {:.4f}\n", file, context, r.windows, r.loss,
                   std::exp(r.loss));
    }
  }
  if (json) {
    const nlohmann::ordered_json all = {{"device", device},
                                        {"dtype", model::name_of(opened.llama->dtype())},
                                        {"products", ops::to_string(opened.llama->product())},
                                        {"results", results}};
    write_result(*json, all.dump(2));
  }
  return Exit::done;
}

}  // namespace

Verb eval_ppl_verb() {
  return {
      "eval-ppl",
      "sliding-window perplexity with full attention",
      "--model DIR --data FILE --context N[,N...]",
      "The default is LongLoRA's protocol: windows start every 256 tokens and every prediction of a window counts.\n"
      "With --score last-stride every token counts once. Example:\n"
      "  longlora eval-ppl --model Llama-2-7b-hf --adapter runs/7b-32k/final --data pg19-test.bin --context 8192,32768",
      declare,
      run};
}

}  // namespace longlora::cmd

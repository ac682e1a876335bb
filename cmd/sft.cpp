// `longlora sft`: supervised fine-tuning on conversations, loss on the answers only.
#include <unistd.h>

#include <fmt/format.h>

#include "cmd/rank_options.h"
#include "cmd/verb.h"
#include "core/base/signal.h"
#include "core/recipe/read.h"
#include "core/text/stream_decoder.h"
#include "core/train/trainer.h"

namespace longlora::cmd {
namespace {

void declare(cxxopts::Options& options) {
  options.add_options()("resume", "go on from the newest checkpoint in checkpoint.dir")(
      "show", "print the first N samples, what is learned of them marked, and stop", cxxopts::value<int64_t>(), "N");
  declare_rank_options(options);
}

// The sample's text, special tokens by name, answers in green or, where the output is no terminal, in [[ ]].
void print(const data::Sample& sample, const std::shared_ptr<const text::Tokenizer>& tokenizer, bool colour) {
  const std::string on = colour ? "\033[1;32m" : "[[", off = colour ? "\033[0m" : "]]";
  const auto& [ids, learn] = sample.tokens;
  text::StreamDecoder decoder(tokenizer, false);
  std::string text;
  bool learning = false;
  for (size_t i = 0; i < ids.size(); ++i) {
    if (static_cast<bool>(learn[i]) != learning) text += learning ? off : on;
    learning = learn[i] != 0;
    text += decoder.push(ids[i]);
  }
  text += decoder.finish();
  if (learning) text += off;
  fmt::print("--- {}: {} tokens, {} learned{}\n{}\n", sample.where, ids.size(),
             std::count(learn.begin(), learn.end(), uint8_t{1}),
             sample.cut > 0 ? fmt::format("; {} tokens of material cut out", sample.cut) : "", text);
}

Exit run(const cxxopts::ParseResult& arguments) {
  ignore_closed_pipes();
  const std::vector<std::string>& words = arguments.unmatched();
  if (words.empty()) usage_error("sft: which recipe? usage: longlora sft RECIPE [key=value ...]");
  const recipe::Recipe recipe = recipe::read(words.front(), std::span(words).subspan(1), recipe::Use::sft);
  if (arguments.count("show") == 0) {
    return run_ranks(
        arguments,
        [&](dist::Job& job) { return train::train(recipe, arguments.count("resume") > 0, recipe::Use::sft, job); },
        [&](const dist::Launch& launch) { train::check_ranks(recipe, launch); });
  }
  const auto count = arguments["show"].as<int64_t>();
  if (count < 1) usage_error("sft: --show {}: at least 1 sample", count);
  if (arguments.count("nproc") > 0) usage_error("sft: --show trains nothing, so --nproc does not go with it");
  if (arguments.count("resume") > 0) usage_error("sft: --show trains nothing, so --resume does not go with it");
  const auto [tokenizer, samples] = train::first_samples(recipe, count);
  for (const data::Sample& sample : samples) print(sample, tokenizer, ::isatty(STDOUT_FILENO) != 0);
  return Exit::done;
}

}  // namespace

Verb sft_verb() {
  return {"sft",
          "fine-tune on instructions and conversations, loss on the answers only",
          "RECIPE [key=value ...]",
          "RECIPE as for train; data.train and data.valid name .json (a list) or .jsonl files, each also .zst, with\n"
          "entries {\"instruction\", \"input\", \"output\"}, {\"input\", \"output\"}, {\"conversations\": [{\"from\", "
          "\"value\"}]}\n"
          "or {\"messages\": [{\"role\", \"content\"}]}. The keys sft.* say in which chat format, and what becomes of "
          "samples\nlonger than a row.\n"
          "Look before training:      longlora sft my.json --show 3\n"
          "Go on from a train run:    longlora sft my.json model.adapter=runs/7b-32k/final\n"
          "A new adapter on top:      longlora sft my.json model.stack_on=runs/7b-32k/final\n"
          "Writes what train writes.",
          declare,
          run};
}

}  // namespace longlora::cmd

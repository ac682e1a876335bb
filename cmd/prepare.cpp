// `longlora prepare`: text to a token file.
#include "core/data/prepare.h"

#include "cmd/verb.h"
#include "core/base/signal.h"
#include "core/data/glob.h"

namespace longlora::cmd {
namespace {

data::Bos bos_of(const std::string& text) {
  if (text == "auto") return data::Bos::automatic;
  if (text == "yes") return data::Bos::yes;
  if (text == "no") return data::Bos::no;
  usage_error("prepare: --bos is auto, yes or no, not '{}'", text);
}

Exit run(const cxxopts::ParseResult& arguments) {
  for (const char* needed : {"tokenizer", "out", "inputs"}) {
    if (arguments.count(needed) > 0) continue;
    usage_error("prepare: {} is missing; usage: longlora prepare --tokenizer DIR --out FILE.bin INPUT...",
                std::string(needed) == "inputs" ? "INPUT" : "--" + std::string(needed));
  }
  data::PrepareOptions options;
  options.out = arguments["out"].as<std::string>();
  options.bos = bos_of(arguments["bos"].as<std::string>());
  options.overwrite = arguments["overwrite"].as<bool>();
  options.inputs = data::expand(arguments["inputs"].as<std::vector<std::string>>());
  const auto tokenizer = text::Tokenizer::load(arguments["tokenizer"].as<std::string>());

  say_on_stop("finishing up: what is done is kept");
  const data::PrepareResult made = data::prepare(*tokenizer, options);
  if (!made.complete) {
    fmt::print(stderr, "stopped after {} documents; the same command goes on from there\n", made.documents);
    return Exit::interrupted;
  }
  fmt::print("{}: {} documents, {} tokens{}\n", options.out.string(), made.documents, made.tokens,
             made.empty > 0 ? fmt::format(" ({} empty documents left out)", made.empty) : "");
  return Exit::done;
}

}  // namespace

Verb prepare_verb() {
  Verb verb;
  verb.name = "prepare";
  verb.summary = "text -> token file, streaming, resumable";
  verb.arguments = "--tokenizer DIR --out FILE.bin INPUT...";
  verb.details =
      "Inputs are files or patterns ('books/**/*.txt'; *, ? and ** are known): .txt (a file is a document), .jsonl\n"
      "(an object with \"text\" a line), .json (an array of such objects, or one), each also with .zst. "
      "FILE.bin holds\n"
      "uint16 ids (uint32 for a vocabulary above 65536), FILE.idx.json beside it the documents. Every document ends\n"
      "with EOS. Unfinished work is kept in FILE.bin.partial, and the same command goes on with it. A document is\n"
      "tokenized whole: at most 1 GiB of text.\n\n"
      "  longlora prepare --tokenizer Llama-2-7b-hf --out pg19.bin 'pg19/train/*.txt'";
  verb.declare = [](cxxopts::Options& options) {
    options.add_options()("tokenizer", "folder with the model's tokenizer", cxxopts::value<std::string>(), "DIR")(
        "out", "token file to write", cxxopts::value<std::string>(), "FILE.bin")(
        "bos", "begin each document with BOS: auto (if the tokenizer adds one), yes, no",
        cxxopts::value<std::string>()->default_value("auto"),
        "WHEN")("overwrite", "replace FILE.bin, or unfinished work on other inputs",
                cxxopts::value<bool>()->default_value("false"))("inputs", "text files or patterns",
                                                                cxxopts::value<std::vector<std::string>>());
    options.parse_positional({"inputs"});
  };
  verb.run = run;
  return verb;
}

}  // namespace longlora::cmd

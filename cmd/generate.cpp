// `longlora generate`: text from a model: one prompt streamed, a file of prompts, or a conversation.
#include <cmath>

#include "cmd/generate_modes.h"
#include "core/base/file.h"
#include "core/base/signal.h"
#include "core/model/tensors.h"
#include "core/text/chat_template.h"
#include "core/text/unicode.h"

namespace longlora::cmd {
namespace {

constexpr int64_t kMost = 100'000'000;  // tokens

void declare(cxxopts::Options& options) {
  declare_model_options(options);
  options.add_options()("prompt", "the text to go on from; with --chat the first message",
                        cxxopts::value<std::string>(),
                        "TEXT")("prompt-file", "a file with that text", cxxopts::value<std::string>(), "FILE")(
      "prompts", "answer all prompts of a .jsonl file, a JSON line each", cxxopts::value<std::string>(), "FILE")(
      "chat", "a conversation: each line of standard input is a turn")("system", "the system message of --chat",
                                                                       cxxopts::value<std::string>(), "TEXT")(
      "format", "chat format: llama-2, llama-3, mistral, vicuna, alpaca, longlora (default: the model's own)",
      cxxopts::value<std::string>(),
      "NAME")("max-new-tokens", "at most so many new tokens (default: 128; in a conversation 1024 an answer)",
              cxxopts::value<int64_t>(),
              "N")("stop", "end where this text comes, which is not shown; may be given several times",
                   cxxopts::value<std::vector<std::string>>(),
                   "TEXT")("temperature", "0: always the likeliest token", cxxopts::value<double>()->default_value("0"),
                           "T")("top-p", "sample from the smallest set of tokens with this probability",
                                cxxopts::value<double>()->default_value("1"), "P")(
      "top-k", "sample from the K likeliest tokens; 0: all", cxxopts::value<int64_t>()->default_value("0"), "K")(
      "repetition-penalty", "over 1: fewer of the tokens that were there already",
      cxxopts::value<double>()->default_value("1"),
      "X")("seed", "of the sampling", cxxopts::value<uint64_t>()->default_value("42"), "N")(
      "beyond", "allow more tokens than the model's RoPE settings cover")(
      "json", "write the results as JSON; - for standard output", cxxopts::value<std::string>(), "FILE|-");
}

std::optional<std::string> text_of(const cxxopts::ParseResult& arguments, const char* option) {
  if (arguments.count(option) == 0) return std::nullopt;
  return arguments[option].as<std::string>();
}

eval::AnswerOptions answer_options(const cxxopts::ParseResult& arguments, int64_t max_new_tokens) {
  eval::AnswerOptions options{.generate = {.max_new_tokens = max_new_tokens,
                                           .temperature = arguments["temperature"].as<double>(),
                                           .top_p = arguments["top-p"].as<double>(),
                                           .top_k = arguments["top-k"].as<int64_t>(),
                                           .repetition_penalty = arguments["repetition-penalty"].as<double>(),
                                           .seed = arguments["seed"].as<uint64_t>()},
                              .stop_strings = {}};
  if (arguments.count("max-new-tokens") > 0)
    options.generate.max_new_tokens = arguments["max-new-tokens"].as<int64_t>();
  if (arguments.count("stop") > 0) options.stop_strings = arguments["stop"].as<std::vector<std::string>>();
  const eval::GenerateOptions& how = options.generate;
  if (how.max_new_tokens < 1 || how.max_new_tokens > kMost)
    usage_error("--max-new-tokens must lie between 1 and {}", kMost);
  if (!(how.temperature >= 0) || !(how.top_p > 0 && how.top_p <= 1) || how.top_k < 0)
    usage_error("--temperature must not be negative, --top-p lie in (0, 1], --top-k not be negative");
  if (!(how.repetition_penalty > 0) || !std::isfinite(how.repetition_penalty))
    usage_error("--repetition-penalty must be a number over 0; 1 changes nothing");
  for (const std::string& stop : options.stop_strings) {
    if (stop.empty()) usage_error("--stop: an empty text would end every answer at once");
    if (!text::is_valid_utf8(stop)) usage_error("--stop: is not UTF-8, which all answers are");
  }
  return options;
}

Exit answer_one(const GenerateArguments& arguments, const std::string& text) {
  const adapt::OpenedModel opened = open_with_tokenizer(arguments);
  const std::vector<int32_t> prompt = with_bos(*opened.tokenizer, text);
  const int64_t room = static_cast<int64_t>(prompt.size()) + arguments.answer.generate.max_new_tokens;
  adapt::check_covered(opened.llama->config(), room, arguments.beyond);
  const bool quiet = arguments.json == "-";
  model::KvCache cache = opened.llama->make_cache(room);
  const eval::Answer answer = eval::answer(*opened.llama, opened.tokenizer, prompt, cache, opened.stop,
                                           arguments.answer, [&](const std::string& piece) {
                                             if (quiet) return;
                                             fmt::print("{}", piece);
                                             std::fflush(stdout);
                                           });
  if (!quiet) fmt::print("\n");
  if (arguments.json) {
    nlohmann::ordered_json result = {{"dtype", model::name_of(opened.llama->dtype())},
                                     {"products", ops::to_string(opened.llama->product())}};
    add_answer(result, static_cast<int64_t>(prompt.size()), answer);
    write_result(*arguments.json, result.dump(2));
  }
  if (answer.finish == eval::Finish::interrupted)
    throw Stopped("stopped; run the same command again for the whole answer");
  return Exit::done;
}

Exit run(const cxxopts::ParseResult& arguments) {
  if (!arguments.unmatched().empty())
    usage_error("generate: '{}' belongs to no option; 'longlora help generate' shows them",
                arguments.unmatched().front());
  (void)required(arguments, "generate", "model");
  const auto prompt = text_of(arguments, "prompt"), prompt_file = text_of(arguments, "prompt-file"),
             prompts = text_of(arguments, "prompts");
  const bool talk = arguments.count("chat") > 0;
  if (prompts ? talk || prompt || prompt_file : !talk && (prompt ? 1 : 0) + (prompt_file ? 1 : 0) != 1)
    usage_error("generate: give one of --prompt, --prompt-file, --prompts and --chat");
  if (!talk && arguments.count("system") > 0) usage_error("generate: --system belongs to --chat");
  if (!talk && !prompts && arguments.count("format") > 0)
    usage_error("generate: --format belongs to --chat and --prompts; --prompt is taken as it is");
  const GenerateArguments how{.model = model_options(arguments),
                              .answer = answer_options(arguments, talk ? 1024 : 128),
                              .json = output_file(arguments, "json"),
                              .format = text_of(arguments, "format"),
                              .beyond = arguments.count("beyond") > 0};
  if (how.format) (void)text::chat_format(*how.format);
  if (prompts) return answer_prompts(how, *prompts);
  std::optional<std::string> first = prompt;
  if (prompt_file) first = read_file(*prompt_file) + (prompt ? "\n" + *prompt : "");
  if (talk) return chat(how, text_of(arguments, "system"), first);
  return answer_one(how, *first);
}

}  // namespace

text::ChatFormat GenerateArguments::chat_format() const {
  return format ? text::chat_format(*format) : text::chat_format_of(model.model, "--format");
}

adapt::OpenedModel open_with_tokenizer(const GenerateArguments& arguments) {
  if (!text::Tokenizer::is_in(arguments.model.model) && fs::is_directory(arguments.model.model))
    input_error("{}: has no tokenizer (tokenizer.model or tokenizer.json)", arguments.model.model.string());
  return adapt::open_model(arguments.model);
}

std::vector<int32_t> with_bos(const text::Tokenizer& tokenizer, const std::string& text) {
  std::vector<int32_t> tokens = tokenizer.encode(text);
  if (tokenizer.adds_bos() && tokenizer.bos()) tokens.insert(tokens.begin(), *tokenizer.bos());
  return tokens;
}

void add_answer(nlohmann::ordered_json& object, int64_t prompt_tokens, const eval::Answer& answer) {
  object["prompt_tokens"] = prompt_tokens;
  object["tokens"] = answer.tokens;
  object["text"] = answer.text;
  object["finish"] = eval::name_of(answer.finish);
  object["tokens_per_s"] = answer.tokens_per_s;
}

JsonLines::JsonLines(const std::string& target) {
  if (target == "-") return;
  std::error_code ignored;  // opening the file says it
  if (const fs::path folder = fs::path(target).parent_path(); !folder.empty()) fs::create_directories(folder, ignored);
  file_.emplace(target, 0);
}

void JsonLines::write(const nlohmann::ordered_json& object) {
  const std::string line = object.dump() + "\n";
  if (file_) {
    file_->append(line);
    file_->sync();
    return;
  }
  fmt::print("{}", line);
  if (std::fflush(stdout) != 0) fail("standard output: cannot be written");
}

Verb generate_verb() {
  return {
      "generate",
      "text from a model: a prompt, a file of prompts, or a conversation",
      "--model DIR --prompt TEXT | --prompt-file FILE | --prompts FILE | --chat",
      "--prompts: lines {\"prompt\": TEXT} or {\"messages\": [{\"role\", \"content\"}]}, perhaps with \"id\"; "
      "a line of JSON comes\n"
      "out for each, to standard output or the file of --json.\n"
      "--chat: --prompt and --prompt-file (together: the file, then the text) are the first message, then lines of\n"
      "standard input are read until it ends. /file PATH, /reset, /quit and /help are commands. Ctrl-C ends an "
      "answer.\n\n"
      "  longlora generate --model Llama-2-7b-hf --adapter runs/7b-32k/final --prompt-file book.txt\n"
      "  longlora generate --model Llama-2-7b-chat-32k --chat --prompt-file paper.txt --prompt 'What is new in it?'",
      declare,
      run};
}

}  // namespace longlora::cmd

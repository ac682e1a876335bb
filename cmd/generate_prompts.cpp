// `longlora generate --prompts FILE`: a file of prompts, answered one after the other.
#include "cmd/generate_modes.h"
#include "core/base/log.h"
#include "core/base/progress.h"
#include "core/base/signal.h"
#include "core/data/prompts.h"

namespace longlora::cmd {
namespace {

struct Question {
  std::optional<nlohmann::json> id;
  std::vector<int32_t> tokens, stop;
};

bool any_conversation(const std::vector<data::Prompt>& prompts) {
  return std::ranges::any_of(prompts, [](const data::Prompt& prompt) { return !prompt.messages.empty(); });
}

Question question_of(data::Prompt& prompt, const adapt::OpenedModel& opened, const GenerateArguments& arguments,
                     std::optional<text::ChatFormat> format) {
  try {
    Question out{std::move(prompt.id), {}, opened.stop};
    if (prompt.messages.empty()) {
      out.tokens = with_bos(*opened.tokenizer, prompt.text);
    } else {
      out.tokens = text::encode_chat(*opened.tokenizer, *format, prompt.messages).ids;
      out.stop.push_back(text::answer_end(*opened.tokenizer, *format));
    }
    if (out.tokens.empty()) input_error("the prompt has no token");
    adapt::check_covered(opened.llama->config(),
                         static_cast<int64_t>(out.tokens.size()) + arguments.answer.generate.max_new_tokens,
                         arguments.beyond);
    return out;
  } catch (const Error& error) {
    throw Error(error.code(), prompt.where + ": " + error.what());
  }
}

}  // namespace

Exit answer_prompts(const GenerateArguments& arguments, const std::string& file) {
  std::vector<data::Prompt> prompts = data::read_prompts(file);
  std::optional<text::ChatFormat> format;
  if (any_conversation(prompts)) format = arguments.chat_format();
  const adapt::OpenedModel opened = open_with_tokenizer(arguments);
  const model::Llama& llama = *opened.llama;
  std::vector<Question> questions;
  for (data::Prompt& prompt : prompts) questions.push_back(question_of(prompt, opened, arguments, format));

  JsonLines out(arguments.json.value_or("-"));
  Progress progress("answering", static_cast<int64_t>(questions.size()), "prompts");
  for (size_t i = 0; i < questions.size(); ++i) {
    const auto& [id, tokens, stop] = questions[i];
    const auto length = static_cast<int64_t>(tokens.size());
    model::KvCache cache = llama.make_cache(length + arguments.answer.generate.max_new_tokens);
    const eval::Answer answer =
        eval::answer(llama, opened.tokenizer, tokens, cache, stop, arguments.answer, [](const std::string&) {});
    progress.clear();
    if (answer.finish == eval::Finish::interrupted) {
      throw Stopped(fmt::format("stopped; the first {} of {} prompts were answered", i, questions.size()));
    }
    nlohmann::ordered_json line = {{"index", i}};
    if (id) line["id"] = *id;
    add_answer(line, length, answer);
    out.write(line);
    progress.update(static_cast<int64_t>(i) + 1);
  }
  progress.finish();
  return Exit::done;
}

}  // namespace longlora::cmd

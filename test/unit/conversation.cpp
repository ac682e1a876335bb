// Conversations and stop texts: against transformers' chats, and against generating each answer from scratch.
#include "core/eval/conversation.h"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>
#include <random>

#include "core/adapt/open_model.h"
#include "core/base/file.h"
#include "core/data/prompts.h"
#include "core/text/stop_strings.h"
#include "test/unit/compatibility.h"
#include "test/unit/temporary_folder.h"

namespace longlora {
namespace {

const fs::path kChat = fs::path(LONGLORA_SOURCE_DIR) / "test/golden/chat";  // scripts/goldens/chat.py

adapt::OpenedModel open_chat(const std::string& rope = "") {
  return adapt::open_model({.model = kChat, .adapter = {}, .dtype = "float32", .device = "cpu", .rope = rope});
}

const auto kSilent = [](const std::string&) {};

eval::ConversationOptions options_of(int64_t new_tokens, int64_t limit) {
  return {.format = text::ChatFormat::llama3,
          .system = std::nullopt,
          .answer = {.generate = {.max_new_tokens = new_tokens}, .stop_strings = {}},
          .limit = limit};
}

}  // namespace

TEST_CASE("a conversation is that of transformers, its template and its greedy answers", "[eval][chat][golden]") {
  const auto expected = nlohmann::json::parse(read_file(kChat / "expected.json"));
  const auto opened = open_chat();
  int number = 0;
  for (const auto& turns : expected["conversations"]) {
    DYNAMIC_SECTION(
        test::compatible("chat", "llama-3", fmt::format("answers of {} turns, {}", turns.size(), ++number))) {
      eval::ConversationOptions options = options_of(10, 256);
      if (const auto& first = turns[0]["messages"][0]; first["role"] == "system") options.system = first["content"];
      eval::Conversation conversation(*opened.llama, opened.tokenizer, opened.stop, options);
      int64_t before = 0;
      for (const auto& turn : turns) {
        INFO(turn["messages"].dump());
        std::string shown;
        const eval::Answer got =
            conversation.ask(turn["messages"].back()["content"], [&](const std::string& piece) { shown += piece; });
        CHECK(got.tokens == turn["tokens"].get<std::vector<int32_t>>());
        CHECK(got.text == turn["text"].get<std::string>());
        CHECK(shown == got.text);
        CHECK(conversation.prompt_tokens() == static_cast<int64_t>(turn["ids"].size()));
        CHECK(conversation.reused_tokens() >= before);  // at least the question before this one
        before = conversation.prompt_tokens();
      }
    }
  }
}

TEST_CASE("a repetition penalty is transformers'", "[eval][golden]") {
  const auto expected = nlohmann::json::parse(read_file(kChat / "expected.json"))["penalty"];
  const auto opened = open_chat();
  const std::vector<int32_t> ids = expected["ids"], theirs = expected["tokens"];
  CHECK(eval::generate(*opened.llama, ids, {}, {.max_new_tokens = 10, .repetition_penalty = expected["by"]}) == theirs);
  CHECK(eval::generate(*opened.llama, ids, {}, {.max_new_tokens = 10}) != theirs);
}

TEST_CASE("what a conversation keeps in its cache changes no answer", "[eval][chat]") {
  const std::string rope = GENERATE("", "linear:2", "dynamic:4");  // under dynamic, keys depend on the length reached
  INFO("rope " << rope);
  const auto opened = open_chat(rope);
  eval::ConversationOptions options = options_of(24, 1024);
  eval::Conversation conversation(*opened.llama, opened.tokenizer, opened.stop, options);
  std::vector<text::ChatMessage> messages;
  const auto pass = [&](int turns) {
    for (int turn = 0; turn < turns; ++turn) {
      messages.push_back({text::Role::user, fmt::format("{} Question {}, ", std::string(70, 'a' + turn), turn)});
      const auto ids = text::encode_chat(*opened.tokenizer, options.format, messages).ids;
      const auto whole = eval::generate(*opened.llama, ids, opened.stop, options.answer.generate);
      const eval::Answer got = conversation.ask(messages.back().content, kSilent);
      CHECK(got.tokens == whole);
      messages.push_back({text::Role::assistant, got.text});
    }
  };
  pass(5);
  CHECK(conversation.prompt_tokens() > 256);  // beyond the original length
  CHECK((conversation.reused_tokens() == 0) == rope.starts_with("dynamic"));
  conversation.reset();
  messages.clear();
  pass(1);
}

TEST_CASE("a prompt read in pieces is answered as a whole one", "[eval]") {
  const std::string rope = GENERATE("linear:32", "dynamic:32");
  const auto opened = open_chat(rope);
  std::vector<int32_t> prompt(5000);
  std::mt19937 random(7);
  for (int32_t& id : prompt) id = static_cast<int32_t>(random() % 700);
  const eval::AnswerOptions options{.generate = {.max_new_tokens = 6}, .stop_strings = {}};
  model::KvCache cache = opened.llama->make_cache(5006);
  const eval::Answer got = eval::answer(*opened.llama, opened.tokenizer, prompt, cache, {}, options, kSilent);
  CHECK(got.tokens == eval::generate(*opened.llama, prompt, {}, options.generate));
}

TEST_CASE("a conversation ends where the context does, and says so", "[eval][chat]") {
  const auto opened = open_chat();
  eval::Conversation conversation(*opened.llama, opened.tokenizer, opened.stop, options_of(1000, 90));
  const eval::Answer first = conversation.ask("Hello", kSilent);
  CHECK(conversation.full());
  CHECK(conversation.prompt_tokens() + static_cast<int64_t>(first.tokens.size()) == 90);
  CHECK_THROWS_WITH(conversation.ask("More", kSilent), Catch::Contains("the model covers 90"));
  conversation.reset();
  CHECK(conversation.ask("Hello", kSilent).tokens == first.tokens);
}

TEST_CASE("a stop text ends an answer, however the pieces cut it, and no part of it is shown", "[text]") {
  const unsigned seed = std::random_device{}();
  INFO("seed " << seed);
  std::mt19937 random(seed);
  const auto letters = [&](size_t most) {
    std::string out(1 + random() % most, 'a');
    for (char& c : out) c = static_cast<char>('a' + random() % 3);
    return out;
  };
  int stopped = 0;
  for (int round = 0; round < 2000; ++round) {
    std::vector<std::string> stops(1 + random() % 3);
    for (std::string& stop : stops) stop = letters(4);
    text::StopStrings watch(stops);
    // The text so far is cut at the first stop text in it, as soon as there is one.
    std::string whole, shown, wanted;
    bool found = false;
    for (int piece = 0; piece < 8 && !found; ++piece) {
      const std::string next = letters(3);
      whole += next;
      size_t first = std::string::npos;
      for (const std::string& stop : stops) first = std::min(first, whole.find(stop));
      found = first != std::string::npos;
      wanted = whole.substr(0, first);
      shown += watch.push(next);
      CHECK(watch.found() == found);
      CHECK(wanted.starts_with(shown));
      CHECK(wanted.size() - shown.size() < 4);  // no more is held back than a stop text's beginning
    }
    shown += watch.finish();
    CHECK(shown == wanted);
    stopped += found ? 1 : 0;
  }
  CHECK(stopped > 100);
  CHECK(stopped < 2000);
}

TEST_CASE("prompts are read with their line in every complaint", "[data]") {
  test::TemporaryFolder folder;
  const fs::path file = folder.path() / "p.jsonl";
  const auto read = [&](const std::string& text) {
    test::write_file(file, text);
    return data::read_prompts(file);
  };
  const auto good =
      read("{\"prompt\": \"a\\nb\", \"id\": 7}\n\n{\"messages\": [{\"role\": \"user\", \"content\": \"q\"}]}");
  REQUIRE(good.size() == 2);
  CHECK((good[0].text == "a\nb" && good[0].id == 7 && good[0].messages.empty()));
  CHECK((good[1].messages.size() == 1 && !good[1].id && good[1].where == file.string() + ":3"));
  const auto refused = [&](const std::string& line, const std::string& why) {
    CHECK_THROWS_WITH(read("{\"prompt\": \"a\"}\n" + line), Catch::Contains("p.jsonl:2") && Catch::Contains(why));
  };
  refused("{\"prompt\"", "not valid JSON");
  refused("[1]", "an object is needed");
  refused("{\"text\": \"a\"}", "one of the keys");
  refused("{\"prompt\": \"a\", \"messages\": []}", "one of the keys");
  refused("{\"prompt\": 3}", "text is needed");
  refused("{\"prompt\": \"a\", \"id\": [1]}", "whole number");
  refused("{\"messages\": []}", "list of messages");
  refused("{\"messages\": [{\"role\": \"user\", \"content\": \"q\"}, {\"role\": \"assistant\", \"content\": \"a\"}]}",
          "must be the user's");
  CHECK_THROWS_WITH(read("\n"), Catch::Contains("no prompt"));
}

}  // namespace longlora

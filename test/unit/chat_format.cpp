// Chat formats against the published templates: texts, ids, and which ids are learned.
#include <catch2/catch.hpp>

#include "core/data/samples.h"
#include "core/text/chat.h"
#include "test/unit/compatibility.h"
#include "test/unit/tokenizer_fixtures.h"

using namespace longlora;
using namespace longlora::text;
namespace fixtures = tokenizer_fixtures;

namespace {

std::vector<ChatMessage> messages_of(const nlohmann::json& json) {
  std::vector<ChatMessage> messages;
  for (const auto& message : json) {
    const auto role = message["role"].get<std::string>();
    messages.push_back({role == "system" ? Role::system
                        : role == "user" ? Role::user
                                         : Role::assistant,
                        message["content"].get<std::string>()});
  }
  return messages;
}

}  // namespace

TEST_CASE("chat formats give the reference texts, ids and masks", "[tokenizer][chat]") {
  const auto cases = nlohmann::json::parse(read_file(fixtures::folder("chats.json")));
  REQUIRE(cases.size() > 15);
  int number = 0;
  for (const auto& want : cases) {
    const auto format = chat_format(want["format"].get<std::string>());
    const auto tokenizer = fixtures::load(want["tokenizer"].get<std::string>());
    const auto messages = messages_of(want["messages"]);
    INFO(want["format"] << ": " << want["text"]);
    DYNAMIC_SECTION(
        test::compatible("chat", want["format"].get<std::string>(), fmt::format("conversation {}", ++number))) {
      const auto got = encode_chat(*tokenizer, format, messages);
      CHECK(got.ids == want["ids"].get<std::vector<int32_t>>());
      CHECK(got.learn == want["learn"].get<std::vector<uint8_t>>());
      const auto name = [&](std::optional<int32_t> id) { return tokenizer->decode(std::span(&*id, 1), false); };
      std::string text;
      for (const auto& piece : render_chat(format, messages, name(tokenizer->bos()), name(tokenizer->eos())))
        text += piece.text;
      CHECK(text == want["text"].get<std::string>());
      if (const auto entry = want.value("entry", nlohmann::json()); !entry.is_null()) {  // LongLoRA's data as messages
        const auto made = data::messages_for(format, {.where = "",
                                                      .messages = {{Role::user, entry["instruction"]}, messages.back()},
                                                      .input = entry.value("input", "")});
        REQUIRE(made.size() == messages.size());
        for (size_t i = 0; i < made.size(); ++i)
          CHECK((made[i].role == messages[i].role && made[i].content == messages[i].content));
      }
    }
  }
}

TEST_CASE("a conversation that a format cannot hold is refused", "[tokenizer][chat]") {
  using Catch::Contains;
  const auto user = [](const char* text) { return ChatMessage{Role::user, text}; };
  const auto assistant = [](const char* text) { return ChatMessage{Role::assistant, text}; };
  const ChatMessage system{Role::system, "s"};
  const auto render = [](ChatFormat format, std::vector<ChatMessage> messages) {
    return render_chat(format, messages, "<s>", "</s>");
  };
  CHECK_THROWS_WITH(render(ChatFormat::llama2, {}), Contains("needs a message"));
  CHECK_THROWS_WITH(render(ChatFormat::llama2, {assistant("a")}), Contains("message 1"));
  CHECK_THROWS_WITH(render(ChatFormat::llama3, {system, user("a"), user("b")}), Contains("message 3"));
  CHECK_THROWS_WITH(render(ChatFormat::mistral, {system, user("a")}), Contains("system message"));
  CHECK_THROWS_WITH(render(ChatFormat::alpaca, {user("a"), assistant("b"), user("c")}), Contains("alpaca"));
  CHECK_THROWS_WITH(encode_chat(*fixtures::load("json-llama2"), ChatFormat::llama3, std::vector{user("a")}),
                    Contains("<|start_header_id|>"));
  CHECK_THROWS_WITH(chat_format("lama-2"), Contains("did you mean 'llama-2'"));
}

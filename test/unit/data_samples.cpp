// From conversations to samples and rows: what is learned, what is cut, what is left out. With a tokenizer of bytes
// every expectation is a text made by hand.
#include <numeric>
#include <set>

#include "core/data/rows.h"
#include "core/data/samples.h"
#include "core/text/chat_template.h"
#include "test/unit/data_support.h"
#include "test/unit/tokenizer_fixtures.h"

using namespace longlora;
using namespace longlora::data;
using longlora::test::ByteTokenizer;
using longlora::test::error_of;
using text::ChatFormat;
using text::ChatTokens;
using text::Role;
using Json = nlohmann::json;

namespace {

// Its EOS is written as the byte 1; a text begins with BOS, which is not a byte.
const ByteTokenizer kBytes(true);

std::string text_of(std::span<const int32_t> ids) {
  std::string text;
  for (const int32_t id : ids) text += id == 256 ? "<s>" : id == 1 ? "</s>" : std::string(1, static_cast<char>(id));
  return text;
}

// The text with what is learned in [[ ]].
std::string marked(const ChatTokens& tokens) {
  std::string text;
  for (size_t i = 0; i < tokens.ids.size(); ++i) {
    const bool before = i > 0 && tokens.learn[i - 1] != 0, now = tokens.learn[i] != 0;
    text += (now && !before ? "[[" : before && !now ? "]]" : "") + text_of(std::span(tokens.ids).subspan(i, 1));
  }
  return text + (tokens.learn.back() != 0 ? "]]" : "");
}

std::vector<int32_t> learned(const ChatTokens& tokens) {
  std::vector<int32_t> ids;
  for (size_t i = 0; i < tokens.ids.size(); ++i)
    if (tokens.learn[i] != 0) ids.push_back(tokens.ids[i]);
  return ids;
}

struct Read {
  std::vector<Sample> samples;
  SampleReport report;
};

Read read(const fs::path& path, ChatFormat format, int64_t length,
          const std::function<void(SampleOptions&)>& change = {}, const text::Tokenizer& tokenizer = kBytes) {
  SampleOptions options{.patterns = {path.string()}, .format = format, .length = length};
  if (change) change(options);
  Read out;
  out.report = read_samples(tokenizer, options, [&](Sample&& sample) { out.samples.push_back(std::move(sample)); });
  return out;
}

std::string words(std::mt19937& random, int count) {
  std::string text;
  for (int i = 0; i < count; ++i) text += fmt::format("{}w{}", i > 0 ? " " : "", random() % 1000);
  return text;
}

}  // namespace

TEST_CASE("only answers and what ends them are learned, in every turn", "[data][sft]") {
  const test::Folder folder;
  const fs::path path =
      folder.write("a.jsonl", R"({"messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "u1"},
 {"role": "assistant", "content": "a1"}, {"role": "user", "content": "u2"}, {"role": "assistant", "content": "a2"},
 {"role": "user", "content": "u3"}]})");
  // one line
  std::string bytes = read_file(path);
  std::erase(bytes, '\n');
  folder.write("a.jsonl", bytes + "\n" + R"({"instruction": "Do", "output": "done"})" + "\n" +
                              R"({"instruction": "Do", "input": "it", "output": "done"})" + "\n");
  const auto get = [&](ChatFormat format) {
    std::vector<std::string> all;
    for (const Sample& sample : read(path, format, 2000).samples) all.push_back(marked(sample.tokens));
    return all;
  };
  const auto vicuna = get(ChatFormat::vicuna);
  REQUIRE(vicuna.size() == 3);
  CHECK(vicuna[0] == "<s>S USER: u1 ASSISTANT:[[ a1</s>]]USER: u2 ASSISTANT:[[ a2</s>]]USER: u3 ASSISTANT:");
  CHECK_THAT(vicuna[2], Catch::EndsWith("USER: Do\nit ASSISTANT:[[ done</s>]]"));
  const auto longlora = get(ChatFormat::longlora);
  CHECK(longlora[0] ==
        "<s>[INST] <<SYS>>\nS\n<</SYS>> \n\n u1 [/INST][[a1</s>]][INST]u2[/INST][[a2</s>]][INST]u3[/INST]");
  CHECK(longlora[1] == "<s>[INST]Do[/INST][[done</s>]]");
  CHECK_THAT(
      longlora[2],
      Catch::StartsWith("<s>[INST] <<SYS>>\nYou are a helpful, respectful and honest assistant. Always answer as "
                        "helpfully as possible, while being safe.  Your answers should not include any harmful,") &&
          Catch::EndsWith(" don't know the answer to a question, please don't share false information.\n<</SYS>> "
                          "\n\n Do \nit [/INST][[done</s>]]"));
  folder.write("a.jsonl", R"({"instruction": "Do", "input": "it", "output": "done"})");
  CHECK(get(ChatFormat::alpaca) ==
        std::vector<std::string>{
            "<s>Below is an instruction that describes a task, paired with an input that provides further context. "
            "Write a "
            "response that appropriately completes the request.\n\n### Instruction:\nDo\n\n### Input:\nit\n\n### "
            "Response:[[done</s>]]"});
}

TEST_CASE("samples have the ids and masks of encode_chat", "[data][sft]") {
  const auto cases = Json::parse(read_file(tokenizer_fixtures::folder("chats.json")));
  const test::Folder folder;
  int compared = 0;
  for (const auto& want : cases) {
    if (want["messages"].size() < 2 || want["messages"].back()["role"] != "assistant") continue;
    const auto tokenizer = tokenizer_fixtures::load(want["tokenizer"].get<std::string>());
    const auto path = folder.write("a.json", Json::array({{{"messages", want["messages"]}}}).dump());
    const auto got = read(path, text::chat_format(want["format"].get<std::string>()), 4000, {}, *tokenizer);
    REQUIRE(got.samples.size() == 1);
    CHECK(got.samples[0].tokens.ids == want["ids"].get<std::vector<int32_t>>());
    CHECK(got.samples[0].tokens.learn == want["learn"].get<std::vector<uint8_t>>());
    ++compared;
  }
  CHECK(compared > 10);
}

TEST_CASE("cutting material gives the exact length and keeps question, answer and every other turn", "[data][sft]") {
  const uint32_t seed = std::random_device{}();
  INFO("seed " << seed);
  std::mt19937 random(seed);
  const auto tokenizer = tokenizer_fixtures::load("json-llama2");
  for (int round = 0; round < 20; ++round) {
    std::string material;
    for (int line = 0; line < 30; ++line) material += words(random, 5 + static_cast<int>(random() % 10)) + "\n";
    const std::string first = "Below is a paper.", question = "Who wrote it?";
    const std::vector<text::ChatMessage> messages = {
        {Role::system, "Be brief."}, {Role::user, "Hello"},
        {Role::assistant, "Hi."},    {Role::user, " " + first + "\n" + material + question + "\n"},
        {Role::assistant, "Ada."},   {Role::user, "Sure?"},
        {Role::assistant, "Yes."}};
    const bool bytes = round % 2 == 0;
    const text::Tokenizer& used = bytes ? static_cast<const text::Tokenizer&>(kBytes) : *tokenizer;
    const ChatFormat format = bytes ? ChatFormat::vicuna : ChatFormat::llama2;
    const ChatTokens whole = encode_chat(used, format, messages);
    const auto size = static_cast<int64_t>(whole.ids.size());
    const int64_t length = 600 + static_cast<int64_t>(random()) % (size - 600);
    ChatTokens tokens = whole;
    const auto cut = cut_material(used, format, messages, length, tokens);
    CAPTURE(round, size, length);
    REQUIRE(cut == size - length);
    REQUIRE(static_cast<int64_t>(tokens.ids.size()) == length);
    REQUIRE(tokens.learn.size() == tokens.ids.size());
    CHECK(learned(tokens) == learned(whole));
    const std::string left = bytes ? text_of(tokens.ids) : used.decode(tokens.ids);
    CHECK_THAT(left, Catch::Contains("Hello") && Catch::Contains(first + "\n") && Catch::Contains(question) &&
                         Catch::Contains("Sure?"));
    // One piece is missing, and it is out of the middle of the message.
    const auto at = std::mismatch(tokens.ids.begin(), tokens.ids.end(), whole.ids.begin()).first - tokens.ids.begin();
    CHECK(std::equal(tokens.ids.begin() + at, tokens.ids.end(), whole.ids.begin() + at + *cut));
    if (bytes) {
      const std::string all = text_of(whole.ids);
      const auto begin = static_cast<int64_t>(all.find(first)) - 2;                             // "<s>" is one token
      const auto end = static_cast<int64_t>(all.find(question) + question.size()) - 2 - 2 * 3;  // and "</s>" another
      CHECK(std::abs((at - begin) - (end - at - *cut)) <= 24);
    }
  }
}

TEST_CASE("material of one line is cut too; what is too short to be cut is refused", "[data][sft]") {
  const std::string line(1000, 'x');
  const std::vector<text::ChatMessage> messages = {{Role::user, line}, {Role::assistant, "yes"}};
  const auto cut = [&](int64_t length) {
    ChatTokens tokens = encode_chat(kBytes, ChatFormat::longlora, messages);
    const auto gone = cut_material(kBytes, ChatFormat::longlora, messages, length, tokens);
    return gone ? marked(tokens) : "refused";
  };
  // <s>[INST] ... [/INST]yes</s> are 1 + 6 + 7 + 4 tokens.
  CHECK(cut(800) == "<s>[INST]" + std::string(782, 'x') + "[/INST][[yes</s>]]");
  CHECK(cut(24) == "<s>[INST]" + std::string(6, 'x') + "[/INST][[yes</s>]]");
  CHECK(cut(22) == "<s>[INST]" + std::string(4, 'x') + "[/INST][[yes</s>]]");
  CHECK(cut(20) == "refused");
}

TEST_CASE("samples longer than a row: cut, left out, or refused", "[data][sft]") {
  const test::Folder folder;
  const auto entry = [](size_t material) {
    return Json{{"instruction", "Q\n" + std::string(material, 'm') + "\nWhy?"}, {"output", "A"}}.dump() + "\n";
  };
  // 1 + 6 + 2 + material + 5 + 7 + 2 tokens
  const fs::path path = folder.write("a.jsonl", entry(77) + entry(78) + entry(5) + entry(300));
  const auto cut = read(path, ChatFormat::longlora, 100);
  REQUIRE(cut.samples.size() == 4);
  for (const size_t i : {1, 3}) CHECK(cut.samples[i].tokens.ids.size() == 100);
  CHECK(cut.samples[0].cut == 0);
  CHECK(cut.samples[1].cut == 1);
  CHECK(cut.samples[3].cut == 223);
  CHECK(marked(cut.samples[3].tokens) == "<s>[INST]Q\n" + std::string(77, 'm') + "\nWhy?[/INST][[A</s>]]");
  CHECK(cut.report.line() ==
        "4 samples, 328 tokens, 8 of them answers; 2 truncated, 0 dropped, 0 without an answer left out");
  const auto dropped = read(path, ChatFormat::longlora, 100, [](auto& o) { o.too_long = TooLong::drop; });
  CHECK(dropped.report.line() ==
        "2 samples, 128 tokens, 4 of them answers; 0 truncated, 2 dropped, 0 without an answer left out");
  CHECK(error_of([&] {
          (void)read(path, ChatFormat::longlora, 299, [](auto& o) { o.too_long = TooLong::error; });
        }).starts_with(fmt::format("3|{}:4: entry 4: has 323 tokens, context.length is 299;", path.string())));
  folder.write("a.jsonl", Json{{"instruction", "Q"}, {"output", std::string(200, 'a')}}.dump());
  CHECK_THAT(error_of([&] { (void)read(path, ChatFormat::longlora, 100); }),
             Catch::Contains("entry 1: has 216 tokens") && Catch::Contains("too short to be cut"));
  SampleOptions all{.patterns = {path.string()}, .format = ChatFormat::longlora, .length = 100};
  all.too_long = TooLong::drop;
  SampleReport report;
  CHECK_THAT(error_of([&] { (void)open_samples(kBytes, all, report); }), Catch::Contains("no sample is left: 1"));
}

TEST_CASE("a sample in which nothing is learned is refused unless such are left out", "[data][sft]") {
  const test::Folder folder;
  const fs::path path = folder.write("a.jsonl", R"({"input": "q", "output": ""})"
                                                "\n"
                                                R"({"messages": [{"role": "user", "content": "q"}]})");
  CHECK(error_of([&] {
          (void)read(path, ChatFormat::longlora, 100);
        }).starts_with(fmt::format("3|{}:2: entry 2: nothing in it is learned", path.string())));
  const auto rest = read(path, ChatFormat::longlora, 100, [](auto& o) { o.drop_empty = true; });
  CHECK(rest.report.empty == 1);
  REQUIRE(rest.samples.size() == 1);
  CHECK(marked(rest.samples[0].tokens) == "<s>[INST]q[/INST][[</s>]]");  // that the answer ends is learned
}

TEST_CASE("what a format cannot hold is named by its entry", "[data][sft]") {
  const test::Folder folder;
  const fs::path path = folder.write("a.json", R"([{"conversations": [{"from": "gpt", "value": "a"}]}])");
  CHECK(error_of([&] { (void)read(path, ChatFormat::longlora, 100); }) ==
        fmt::format("3|{}: entry 1: message 1 of a conversation: user and assistant must take turns, the user first",
                    path.string()));
}

TEST_CASE("rows of samples: own positions, no loss across samples, targets only where answers are",
          "[data][sft][rows]") {
  const test::Folder folder;
  std::mt19937 random(7);
  std::string lines;
  const int count = 300;  // more than are encoded at once
  for (int i = 0; i < count; ++i)
    lines += Json{{"input", fmt::format("{} {}", i, words(random, 1 + static_cast<int>(random() % 8)))},
                  {"output", words(random, 1 + static_cast<int>(random() % 4))}}
                 .dump() +
             "\n";
  const SampleOptions options{
      .patterns = {folder.write("a.jsonl", lines).string()}, .format = ChatFormat::longlora, .length = 160};
  const auto samples = read(options.patterns[0], options.format, options.length).samples;
  REQUIRE(samples.size() == count);
  SampleReport report;
  const auto source = std::make_shared<TokenSource>(open_samples(kBytes, options, report));
  const Rows rows(source, Packing::documents, options.length, 257);
  std::vector<int64_t> every(static_cast<size_t>(rows.count()));
  std::iota(every.begin(), every.end(), 0);
  const Batch batch = rows.batch(every);
  std::multiset<std::vector<int32_t>> left;
  std::map<std::vector<int32_t>, const Sample*> by_ids;
  for (const Sample& sample : samples) left.insert(sample.tokens.ids), by_ids[sample.tokens.ids] = &sample;
  int64_t answers = 0;
  for (size_t d = 0; d + 1 < batch.documents.size(); ++d) {
    const auto from = static_cast<size_t>(batch.documents[d]),
               size = static_cast<size_t>(batch.documents[d + 1]) - from;
    const std::vector<int32_t> ids(batch.tokens.begin() + static_cast<long>(from),
                                   batch.tokens.begin() + static_cast<long>(from + size));
    const bool padding = ids.front() == 257;
    if (!padding) {
      REQUIRE(left.contains(ids));
      left.erase(left.find(ids));
    }
    for (size_t i = 0; i < size; ++i) {
      REQUIRE(batch.positions[from + i] == static_cast<int32_t>(i));
      const bool target = !padding && i + 1 < size && by_ids[ids]->tokens.learn[i + 1] != 0;
      REQUIRE(batch.targets[from + i] == (target ? ids[i + 1] : kIgnore));
      answers += target ? 1 : 0;
    }
  }
  CHECK(left.empty());
  CHECK(answers == report.learned);
  CHECK(batch.target_count() == report.learned);
  CHECK(rows.report().padding == rows.count() * options.length - report.tokens);

  // Other answers or another mask are other data.
  const auto other = [&](std::vector<uint8_t> learn) {
    return TokenSource::of_tokens({5, 6, 7, 8}, {0, 4}, std::move(learn)).fingerprint();
  };
  CHECK(other({0, 0, 1, 1}) == other({0, 0, 1, 1}));
  CHECK(other({0, 0, 1, 1}) != other({0, 1, 1, 1}));
}

TEST_CASE("a tokenizer's chat template names its format where it is a known one", "[data][sft]") {
  const char* llama2 =
      R"({% if messages[0]['role'] == 'system' %}{% set content = '<<SYS>>\n' + system_message + '\n<</SYS>>\n\n' %}{% endif %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{{ ' ' + content.strip() + ' ' + eos_token }})";
  const char* llama3 =
      R"({% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %})";
  const char* mistral = R"({{ '[INST] ' + message['content'] + ' [/INST]' }}{{ message['content'] + eos_token}})";
  CHECK(text::recognize_chat_template(llama2) == ChatFormat::llama2);
  CHECK(text::recognize_chat_template(llama3) == ChatFormat::llama3);
  CHECK(text::recognize_chat_template(mistral) == ChatFormat::mistral);
  CHECK(text::recognize_chat_template(
            std::string("{% if x %}{{ raise_exception('roles must alternate') }}{% endif %}") + mistral) ==
        ChatFormat::mistral);
  // What differs by a space, or writes something more, is not that format.
  CHECK_FALSE(
      text::recognize_chat_template(R"({{ ' [INST] ' + message['content'] + ' [/INST]' }}{{ content + eos_token}})"));
  CHECK_FALSE(text::recognize_chat_template(
      R"({{ '[INST] ' + message['content'] + ' [/INST]' }}{{ content + ' ' + eos_token}})"));
  CHECK_FALSE(text::recognize_chat_template(std::string(llama3) + "{{ 'You are a helpful assistant.' }}"));
  CHECK_FALSE(text::recognize_chat_template(std::string(llama3) + "Today is {{ date }}"));
  CHECK_FALSE(text::recognize_chat_template("{{ '<|im_start|>' + message['role'] }}"));

  const test::Folder folder;
  const auto find = [&] { return text::chat_format_of(folder / "", "sft.format"); };
  CHECK_THAT(error_of([&] { (void)find(); }),
             Catch::StartsWith("2|") && Catch::Contains("has no chat template") &&
                 Catch::Contains("sft.format=NAME, one of llama-2, llama-3, mistral, vicuna, alpaca, longlora"));
  folder.write("tokenizer_config.json", Json{{"chat_template", llama2}}.dump());
  CHECK(find() == ChatFormat::llama2);
  folder.write(
      "tokenizer_config.json",
      Json{{"chat_template", {{{"name", "tool_use"}, {"template", "x"}}, {{"name", "default"}, {"template", llama3}}}}}
          .dump());
  CHECK(find() == ChatFormat::llama3);
  folder.write("chat_template.jinja", "{{ messages }}");
  CHECK_THAT(error_of([&] { (void)find(); }), Catch::Contains("the chat template is none of the known ones"));
}

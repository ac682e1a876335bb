// Conversations out of files: every format, as a list, as lines and compressed, and what is wrong with bad ones.
#include "core/data/instructions.h"
#include "test/unit/data_support.h"

using namespace longlora;
using namespace longlora::data;
using longlora::test::error_of;
using text::Role;

namespace {

std::vector<Instruction> read_all(const fs::path& path) {
  std::vector<Instruction> all;
  read_instructions(path, [&](Instruction&& one) {
    all.push_back(std::move(one));
    return true;
  });
  return all;
}

// "user: a | assistant: b | input: c"
std::string said(const Instruction& one) {
  std::string text;
  for (const auto& [role, content] : one.messages) {
    const char* who = role == Role::system ? "system" : role == Role::user ? "user" : "assistant";
    text += fmt::format("{}{}: {}", text.empty() ? "" : " | ", who, content);
  }
  return one.input.empty() ? text : text + " | input: " + one.input;
}

const std::pair<const char*, const char*> kEntries[] = {
    {R"({"instruction": "Q1", "output": "A1", "file": "book.txt"})", "user: Q1 | assistant: A1"},
    {R"({"instruction": "Q2", "input": "", "output": "A2"})", "user: Q2 | assistant: A2"},
    {R"({"instruction": "Q3", "input": "I3", "output": "A3"})", "user: Q3 | assistant: A3 | input: I3"},
    {R"({"input": "Q4", "output": "A4"})", "user: Q4 | assistant: A4"},
    {R"({"id": 5, "conversations": [{"from": "human", "value": "Q5"}, {"from": "gpt", "value": "A5"},
         {"from": "human", "value": "Q6"}, {"from": "gpt", "value": "A6"}]})",
     "user: Q5 | assistant: A5 | user: Q6 | assistant: A6"},
    {R"({"conversations": [{"from": "system", "value": "S"}, {"from": "human", "value": "[{\"\n"}]})",
     "system: S | user: [{\"\n"},
    {R"({"messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "ü"},
         {"role": "assistant", "content": "A7"}]})",
     "system: S | user: ü | assistant: A7"},
};

}  // namespace

TEST_CASE("instructions are read in every format, as a list, as lines, compressed", "[data][sft]") {
  const test::Folder folder;
  std::string list, lines;
  for (const auto& [entry, want] : kEntries) {
    list += (list.empty() ? "[" : ",\n") + std::string(entry);
    lines += nlohmann::json::parse(entry).dump() + "\n \n";
  }
  list += "]";
  for (const auto& path :
       {folder.write("a.json", list), folder.write("a.jsonl", lines), folder.write("b.json.zst", test::zstd(list)),
        folder.write("b.jsonl.zst", test::zstd(lines))}) {
    INFO(path);
    const auto all = read_all(path);
    REQUIRE(all.size() == std::size(kEntries));
    for (size_t i = 0; i < all.size(); ++i) {
      CHECK(said(all[i]) == kEntries[i].second);
      CHECK(all[i].where.starts_with(path.string() + ":"));
      CHECK(all[i].where.ends_with(fmt::format(": entry {}", i + 1)));
    }
    int taken = 0;  // as many as are wanted
    read_instructions(path, [&](Instruction&&) { return ++taken < 3; });
    CHECK(taken == 3);
  }
  CHECK(read_all(folder.write("none.json", "[]")).empty());
}

TEST_CASE("a bad entry is named by file, number and key", "[data][sft]") {
  const test::Folder folder;
  const std::string good = R"({"input": "q", "output": "a"})";
  const std::pair<const char*, const char*> cases[] = {
      {R"({"instruction": "q"})", R"(the key "output" is missing)"},
      {R"({"input": "q", "outputs": "a"})", R"(the key "output" is missing)"},
      {R"({"instruction": "q", "output": ["a"]})", R"("output" is array, text is needed)"},
      {R"({"instruction": "q", "output": "a", "input": 7})", R"("input" is number, text is needed)"},
      {R"({"text": "x"})", R"(has none of the keys "conversations", "messages", "instruction" and "input")"},
      {R"("just text")", "is string, an object is needed"},
      {R"({"messages": []})", R"("messages" must be a list of messages)"},
      {R"({"messages": {"role": "user", "content": "q"}})", R"("messages" must be a list of messages)"},
      {R"({"messages": ["q"]})", "messages[0]: is string, an object is needed"},
      {R"({"messages": [{"role": "user", "content": "q"}, {"role": "tool", "content": "a"}]})",
       R"(messages[1]: "role" is 'tool'; known are human or user, gpt or assistant, and system)"},
      {R"({"conversations": [{"from": "human", "content": "q"}]})", R"(conversations[0]: the key "value" is missing)"},
  };
  for (const auto& [entry, want] : cases) {
    const fs::path list = folder.write("a.json", "[" + good + ",\n" + entry + "]");
    CHECK(error_of([&] { (void)read_all(list); }) == fmt::format("3|{}: entry 2: {}", list.string(), want));
    const fs::path lines = folder.write("a.jsonl", good + "\n\n" + entry + "\n");
    CHECK(error_of([&] { (void)read_all(lines); }) == fmt::format("3|{}:3: entry 2: {}", lines.string(), want));
  }
  const auto error = [&](const char* name, const std::string& bytes) {
    const fs::path path = folder.write(name, bytes);
    return error_of([&] { (void)read_all(path); });
  };
  CHECK_THAT(error("x.json", good), Catch::Contains("a list of entries is needed"));
  CHECK_THAT(error("x.json", "\"text\""), Catch::Contains("a list of entries is needed"));
  CHECK_THAT(error("x.json", "[" + good + ",\n{\"input\": ]"),
             Catch::StartsWith("3|") && Catch::Contains("x.json:2: not valid JSON after entry 1: syntax error"));
  CHECK_THAT(error("x.jsonl", good + "\n{\"input\n"), Catch::Contains("x.jsonl:2: entry 2 is not valid JSON"));
  CHECK_THAT(error("x.txt", "text"), Catch::Contains("instructions are read from .json and .jsonl"));
  CHECK_THAT(error("x.json.zst", test::zstd("[" + good + "]").substr(0, 12)), Catch::Contains("damaged zstd data"));
}

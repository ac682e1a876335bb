// Reading documents: every kind of file gives the same texts, streams, and says where it is damaged.
#include <catch2/catch.hpp>

#include "core/data/glob.h"
#include "core/data/reader.h"
#include "test/unit/data_support.h"

using namespace longlora;
using namespace longlora::data;
using longlora::test::error_of;

namespace {

std::vector<std::string> texts(const fs::path& path) {
  std::vector<std::string> all;
  read_documents(path, [&](Document&& one) {
    all.push_back(std::move(one.text));
    return true;
  });
  return all;
}

// Documents of all sorts, some longer than the reader's 256 KiB chunks, with characters of 1 to 4 bytes
// throughout.
std::vector<std::string> some_documents(uint32_t seed) {
  const std::vector<std::string> letters = {"a", " ", "\n", "\"", "\\", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80"};
  std::mt19937 random(seed);
  std::vector<std::string> all;
  for (const size_t size : {0, 1, 10, 300, 300000, 5, 700000, 0, 100}) {
    std::string text;
    while (text.size() < size) text += letters[random() % letters.size()];
    all.push_back(text);
  }
  return all;
}

}  // namespace

TEST_CASE("jsonl, json arrays and their zstd forms all give the documents that were written", "[data][reader]") {
  const uint32_t seed = std::random_device{}();
  CAPTURE(seed);
  const test::Folder folder;
  const auto expected = some_documents(seed);
  const bool ascii = GENERATE(false, true);
  nlohmann::json array = nlohmann::json::array();
  std::string lines;
  for (const std::string& text : expected) {
    const nlohmann::json record = {
        {"a", {{"text", "not this"}}}, {"list", {1, {{"text", 2}}}}, {"text", text}, {"z", nullptr}};
    array.push_back(record);
    lines += record.dump(-1, ' ', ascii) + (lines.empty() ? "\r\n \n" : "\n");
  }
  lines.pop_back();  // the last line may lack its end
  const std::string json = array.dump(2, ' ', ascii);
  CHECK(texts(folder.write("a.jsonl", lines)) == expected);
  CHECK(texts(folder.write("a.jsonl.zst", test::zstd(lines))) == expected);
  CHECK(texts(folder.write("a.json", json)) == expected);
  CHECK(texts(folder.write("a.json.zst", test::zstd(json))) == expected);
  CHECK(texts(folder.write("one.json", array[4].dump(-1, ' ', ascii))) == std::vector{expected[4]});
  CHECK(texts(folder.write("a.txt", expected[6])) == std::vector{expected[6]});
  const size_t half = lines.size() / 2;
  CHECK(texts(folder.write("two.txt.zst", test::zstd(lines.substr(0, half)) + test::zstd(lines.substr(half)))) ==
        std::vector{lines});
}

TEST_CASE("text that is not UTF-8 stays in .txt and becomes U+FFFD in JSON, wherever a chunk ends", "[data][reader]") {
  const test::Folder folder;
  const std::string bad =
      "a\xf1\x80\x80\xe1\x80\xc2"
      "b\x80"
      "c\x80\xbf"
      "d\xed\xa0\x80\xc0\xaf\xf4\x90\x80\x80";
  const std::string r = "\xef\xbf\xbd";  // Unicode 15, tables 3-8 to 3-11
  const std::string good = "a" + r + r + r + "b" + r + "c" + r + r + "d" + r + r + r + r + r + r + r + r + r;
  CHECK(texts(folder.write("a.txt", bad)) == std::vector{bad});
  for (size_t shift = 256 * 1024 - 40; shift < 256 * 1024 + 4; ++shift) {
    const std::string filler(shift, 'x');
    CHECK(texts(folder.write("a.jsonl", "{\"text\":\"" + filler + bad + "\"}")) == std::vector{filler + good});
  }
  const std::string cut = "{\"text\":\"x\"}\n{\"text\":\"y\xe2\x82";  // the file itself ends inside a character
  CHECK(error_of([&] { (void)texts(folder.write("b.jsonl", cut)); }).find("b.jsonl:2: not valid JSON") !=
        std::string::npos);
}

TEST_CASE("a long json array and long jsonl are read as they are needed", "[data][reader]") {
  const test::Folder folder;
  std::string array = "[", lines;
  for (int i = 0; i < 20000; ++i) {
    const std::string record = nlohmann::json{{"text", std::string(400, 'x') + std::to_string(i)}}.dump();
    array += (i > 0 ? "," : "") + record;
    lines += record + "\n";
  }
  for (const auto& [name, bytes] : {std::pair{"a.json", array + "]"}, std::pair{"a.jsonl", lines}}) {
    const fs::path path = folder.write(name, bytes);
    int64_t count = 0, last = 0;
    bool rises = true;
    read_documents(path, [&](Document&& one) {
      if (count == 0) CHECK(one.consumed < 300000);
      rises = rises && one.consumed >= last;
      last = one.consumed;
      return ++count < 15000;
    });
    CHECK(count == 15000);
    CHECK(rises);
    CHECK(last < static_cast<int64_t>(bytes.size()));
  }
}

TEST_CASE("a damaged input is named with file, line and what is wrong", "[data][reader]") {
  const test::Folder folder;
  struct Case {
    const char *name, *bytes, *place, *what;
  };
  const std::vector<Case> cases = {
      {"a.jsonl", "{\"text\":\"x\"}\n\n{\"text\":\"x\n", "a.jsonl:3: ", "not valid JSON"},
      {"a.jsonl", "{\"text\":\"x\"}\n{\"text\":5}\n", "a.jsonl:2: ", "the field \"text\" is a number, not a string"},
      {"a.jsonl", "{\"text\":[\"x\"]}\n", "a.jsonl:1: ", "the field \"text\" is an array, not a string"},
      {"a.jsonl", "{\"text\":{\"text\":\"x\"}}\n", "a.jsonl:1: ", "the field \"text\" is an object, not a string"},
      {"a.jsonl", "{\"text\":null}\n", "a.jsonl:1: ", "the field \"text\" is null, not a string"},
      {"a.jsonl", "{\"txt\":\"x\"}\n", "a.jsonl:1: ", "has no field \"text\""},
      {"a.jsonl", "{\"text\":\"x\",\"text\":\"y\"}\n", "a.jsonl:1: ", "comes twice"},
      {"a.jsonl", "\"x\"\n", "a.jsonl:1: ", "an object with the field \"text\" is needed, found a string"},
      {"a.jsonl", "[{\"text\":\"x\"}]\n", "a.jsonl:1: ", "found an array"},
      {"a.jsonl", "{\"text\":\"x\"} {\"text\":\"y\"}\n", "a.jsonl:1: ", "not valid JSON"},
      {"a.jsonl", "{\"text\":\"\\ud800\"}\n", "a.jsonl:1: ", "surrogate"},
      {"a.json", "[\n{\"text\":\"x\"},\n{\"text\":\"y\"}\n{", "a.json:4: ", "not valid JSON"},
      {"a.json", "[\n{\"text\":\"x\"},\n7]", "a.json:3: ", "found a number"},
      {"a.json", "[[{\"text\":\"x\"}]]", "a.json:1: ", "found an array"},
      {"a.json", "", "a.json:1: ", "unexpected end of input"},
      {"a.json", "[{\"text\":\"x\"}", "a.json:1: ", "unexpected end of input"},
      {"a.json", "true", "a.json:1: ", "found a boolean"},
  };
  for (const Case& one : cases) {
    const std::string error = error_of([&] { (void)texts(folder.write(one.name, one.bytes)); });
    CAPTURE(one.bytes, error);
    CHECK(error.starts_with("3|" + folder.str(one.place)));
    CHECK(error.find(one.what) != std::string::npos);
    CHECK(error.size() < 250);
  }
  const std::string packed = test::zstd(std::string(1000000, 'x') + "\n");
  for (const std::string& bytes : {packed.substr(0, packed.size() - 3), std::string(), std::string("no zstd at all"),
                                   packed + packed.substr(0, 9)}) {
    const std::string error = error_of([&] { (void)texts(folder.write("a.txt.zst", bytes)); });
    CAPTURE(error);
    CHECK(error.starts_with("3|" + folder.str("a.txt.zst: damaged zstd data")));
  }
  CHECK(error_of([&] { (void)input_kind("a/b.md"); }).starts_with("3|a/b.md: unknown kind of file"));
  CHECK(error_of([&] { (void)input_kind("b.bin.zst"); }).starts_with("3|"));
  CHECK(error_of([&] { (void)texts(folder / "none.txt"); }).starts_with("3|" + folder.str("none.txt: No such file")));
}

TEST_CASE("what a broken JSON text was about to say is not repeated in the error", "[data][reader]") {
  const test::Folder folder;
  const std::string line = "{\"text\":\"" + std::string(1000000, 'x');
  CHECK(error_of([&] { (void)texts(folder.write("a.jsonl", line)); }).size() < 250);
}

TEST_CASE("patterns give sorted files and never an empty list", "[data][glob]") {
  const test::Folder folder;
  for (const char* name :
       {"b.txt", "a.txt", "a10.txt", ".hidden.txt", "x.md", "s/a.txt", "s/t/c.txt", "s/t/a1.jsonl", ".h/a.txt"}) {
    folder.write(name, "x");
  }
  const auto find = [&](const std::vector<std::string>& patterns) {
    std::vector<std::string> full, all;
    for (const std::string& pattern : patterns) full.push_back(folder.str(pattern));
    for (const fs::path& path : expand(full)) all.push_back(path.lexically_relative(folder / "").string());
    return all;
  };
  using Names = std::vector<std::string>;
  CHECK(find({"*.txt"}) == Names{"a.txt", "a10.txt", "b.txt"});
  CHECK(find({"?.txt"}) == Names{"a.txt", "b.txt"});
  CHECK(find({"a*0*.t*t"}) == Names{"a10.txt"});
  CHECK(find({".h*.txt"}) == Names{".hidden.txt"});
  CHECK(find({"*/*.txt"}) == Names{"s/a.txt"});
  CHECK(find({"**/*.txt"}) == Names{"a.txt", "a10.txt", "b.txt", "s/a.txt", "s/t/c.txt"});
  CHECK(find({"**/t/*"}) == Names{"s/t/a1.jsonl", "s/t/c.txt"});
  CHECK(find({"s/**"}) == Names{"s/a.txt", "s/t/a1.jsonl", "s/t/c.txt"});
  CHECK(find({"**/**/a.txt"}) == Names{"a.txt", "s/a.txt"});
  CHECK(find({"s/a.txt", "?.txt"}) == Names{"s/a.txt", "a.txt", "b.txt"});
  CHECK(error_of([&] { (void)find({"*.bin"}); }) == "3|" + folder.str("*.bin") + ": no file matches this pattern");
  CHECK(error_of([&] { (void)find({"c.txt"}); }) == "3|" + folder.str("c.txt") + ": no such file");
  CHECK(error_of([&] { (void)find({"s"}); }).starts_with("3|" + folder.str("s") + ": is a folder"));
  CHECK(error_of([&] { (void)find({"a.txt", "s/../a*.txt"}); }).starts_with("2|"));
}

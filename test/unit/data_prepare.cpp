// prepare: the token file holds the documents in order whatever the threads do, and stopping it changes
// nothing.
#include <catch2/catch.hpp>
#include <cstring>

#include "core/data/prepare.h"
#include "core/io/token_file.h"
#include "test/unit/data_support.h"

using namespace longlora;
using namespace longlora::data;
using longlora::test::ByteTokenizer;
using longlora::test::error_of;

namespace {

// Texts in four files of three kinds; some documents are empty.
struct Corpus {
  std::vector<fs::path> files;
  std::vector<std::string> texts;

  Corpus(const test::Folder& folder, uint32_t seed) {
    std::mt19937 random(seed);
    const auto text = [&](size_t longest) {
      std::string one;
      for (size_t n = random() % longest; n > 0; --n) one += static_cast<char>('a' + random() % 26);
      texts.push_back(one);
      return one;
    };
    std::string lines, more;
    for (int i = 0; i < 120; ++i) lines += nlohmann::json{{"text", text(i % 11 == 0 ? 1 : 300)}}.dump() + "\n";
    files.push_back(folder.write("1.jsonl", lines));
    files.push_back(folder.write("2.txt", text(5000)));
    for (int i = 0; i < 60; ++i) more += nlohmann::json{{"text", text(200)}}.dump() + "\n";
    files.push_back(folder.write("3.jsonl.zst", test::zstd(more)));
    files.push_back(folder.write("4.txt", text(50)));
  }

  // The ids as the format says: [BOS] text EOS for each document that is not empty.
  [[nodiscard]] std::vector<int32_t> ids(bool bos, std::vector<int64_t>* starts = nullptr) const {
    std::vector<int32_t> all;
    for (const std::string& one : texts) {
      if (one.empty()) continue;
      if (starts != nullptr) starts->push_back(static_cast<int64_t>(all.size()));
      if (bos) all.push_back(256);
      for (const char c : one) all.push_back(c);
      all.push_back(257);
    }
    return all;
  }
};

PrepareOptions options_for(const Corpus& corpus, const fs::path& out) {
  PrepareOptions options;
  options.inputs = corpus.files;
  options.out = out;
  options.threads = 4;
  options.stop = [] { return false; };
  return options;
}

// Stops after `calls` questions.
std::function<bool()> stop_after(int calls) {
  return [left = calls]() mutable { return left-- <= 0; };
}

std::pair<std::string, std::string> made(const fs::path& out) {
  return {read_file(out), read_file(io::token_index_path(out))};
}

}  // namespace

TEST_CASE("prepare writes the documents in order with EOS, and BOS as asked", "[data][prepare]") {
  const uint32_t seed = std::random_device{}();
  CAPTURE(seed);
  const test::Folder folder;
  const Corpus corpus(folder, seed);
  const bool adds_bos = GENERATE(false, true);
  const Bos asked = GENERATE(Bos::automatic, Bos::yes, Bos::no);
  ByteTokenizer tokenizer(adds_bos);
  tokenizer.dawdle = true;
  PrepareOptions options = options_for(corpus, folder / "out.bin");
  options.bos = asked;
  const PrepareResult result = prepare(tokenizer, options);

  const bool bos = asked == Bos::yes || (asked == Bos::automatic && adds_bos);
  std::vector<int64_t> starts;
  const std::vector<int32_t> expected = corpus.ids(bos, &starts);
  const std::string bytes = read_file(folder / "out.bin");
  std::vector<uint16_t> ids(bytes.size() / 2);
  std::memcpy(ids.data(), bytes.data(), bytes.size());
  CHECK(std::vector<int32_t>(ids.begin(), ids.end()) == expected);
  const auto index = nlohmann::json::parse(read_file(folder / "out.idx.json"));
  CHECK(index.at("documents").get<std::vector<int64_t>>() == starts);
  CHECK(index.at("tokens") == expected.size());
  CHECK(index.at("dtype") == "uint16");
  CHECK(index.at("tokenizer") == "bytes");
  CHECK(index.at("bos") == bos);
  CHECK(index.at("sources").size() == 4);
  CHECK(index.at("sources")[1].at("bytes") == fs::file_size(corpus.files[1]));
  CHECK(result.complete);
  CHECK(result.tokens == static_cast<int64_t>(expected.size()));
  CHECK(result.documents == static_cast<int64_t>(starts.size()));
  CHECK(result.empty == static_cast<int64_t>(corpus.texts.size() - starts.size()));
  CHECK(folder.names() ==
        std::vector<std::string>{"1.jsonl", "2.txt", "3.jsonl.zst", "4.txt", "out.bin", "out.idx.json"});
  const io::TokenFile file(folder / "out.bin");
  CHECK(file.documents().size() == starts.size() + 1);
}

TEST_CASE("a vocabulary above 65536 makes a uint32 file", "[data][prepare]") {
  const test::Folder folder;
  const Corpus corpus(folder, 1);
  for (const auto& [vocab, width] : {std::pair{65536, 2}, std::pair{65537, 4}}) {
    PrepareOptions options = options_for(corpus, folder / fmt::format("{}.bin", vocab));
    (void)prepare(ByteTokenizer(false, "bytes", vocab), options);
    const io::TokenFile file(options.out);
    CHECK(io::token_bytes(file.type()) == width);
    std::vector<int32_t> ids(static_cast<size_t>(file.tokens()));
    file.copy(0, ids);
    CHECK(ids == corpus.ids(false));
  }
}

TEST_CASE("stopped and started again at any place, prepare gives the same bytes", "[data][prepare]") {
  const uint32_t seed = std::random_device{}();
  CAPTURE(seed);
  const test::Folder folder;
  const Corpus corpus(folder, seed);
  PrepareOptions options = options_for(corpus, folder / "whole.bin");
  (void)prepare(ByteTokenizer(), options);

  const int step = GENERATE(1, 2, 7, 50, 150);
  options.out = folder / "parts.bin";
  PrepareResult result;
  int runs = 0;
  for (; !result.complete && runs < 500; ++runs) {
    ByteTokenizer tokenizer;
    tokenizer.dawdle = runs % 5 == 0;
    options.stop = stop_after(step);
    result = prepare(tokenizer, options);
    CHECK(fs::exists(folder / "parts.bin") == result.complete);
    CHECK(fs::exists(folder / "parts.idx.json") == result.complete);
    CHECK(fs::exists(folder / "parts.bin.partial") != result.complete);
  }
  CAPTURE(step, runs);
  CHECK(runs > 1);
  CHECK(made(folder / "parts.bin") == made(folder / "whole.bin"));
}

TEST_CASE("a crash loses what came after the last checkpoint and nothing else", "[data][prepare]") {
  const test::Folder folder;
  const Corpus corpus(folder, 2);
  PrepareOptions options = options_for(corpus, folder / "whole.bin");
  (void)prepare(ByteTokenizer(), options);

  options.out = folder / "crash.bin";
  options.stop = stop_after(40);
  REQUIRE(!prepare(ByteTokenizer(), options).complete);
  const fs::path partial = folder / "crash.bin.partial";
  for (const char* name : {"tokens", "documents"}) {  // bytes of documents that no checkpoint knows, the last one cut
    write_file_atomically(partial / name, read_file(partial / name) + std::string(10001, 'x'));
  }
  SECTION("after appending") {}
  SECTION("between putting the index and the tokens in place") {
    folder.write("crash.idx.json", "{}");
  }
  options.stop = [] { return false; };
  CHECK(prepare(ByteTokenizer(), options).complete);
  CHECK(made(folder / "crash.bin") == made(folder / "whole.bin"));
}

TEST_CASE("unfinished work on other inputs is not taken up", "[data][prepare]") {
  const test::Folder folder;
  Corpus corpus(folder, 3);
  PrepareOptions options = options_for(corpus, folder / "out.bin");
  options.stop = stop_after(10);
  REQUIRE(!prepare(ByteTokenizer(), options).complete);
  options.stop = [] { return false; };
  const ByteTokenizer same, others(false, "others");
  const ByteTokenizer* tokenizer = &same;
  SECTION("another file") {
    options.inputs.pop_back();
  }
  SECTION("a file has grown") {
    folder.write("4.txt", "now another text");
  }
  SECTION("a file was edited") {
    fs::last_write_time(corpus.files[3], fs::last_write_time(corpus.files[3]) + std::chrono::seconds(2));
  }
  SECTION("another tokenizer") {
    tokenizer = &others;
  }
  SECTION("BOS") {
    options.bos = Bos::yes;
  }
  const std::string error = error_of([&] { (void)prepare(*tokenizer, options); });
  CHECK(error.starts_with("2|" + folder.str("out.bin.partial") + ": holds unfinished work on other inputs"));
  options.overwrite = true;
  CHECK(prepare(*tokenizer, options).complete);
  options.out = folder / "fresh.bin";
  (void)prepare(*tokenizer, options);
  CHECK(made(folder / "out.bin") == made(folder / "fresh.bin"));
}

TEST_CASE("nothing is overwritten unasked, and asked only at the end", "[data][prepare]") {
  const test::Folder folder;
  const Corpus corpus(folder, 4);
  PrepareOptions options = options_for(corpus, folder / "out.bin");
  SECTION("token file") {
    folder.write("out.bin", "old");
    CHECK(error_of([&] {
            (void)prepare(ByteTokenizer(), options);
          }).starts_with("2|" + folder.str("out.bin: exists already")));
    options.overwrite = true;
    options.stop = stop_after(5);
    CHECK(!prepare(ByteTokenizer(), options).complete);
    CHECK(read_file(folder / "out.bin") == "old");
    options.stop = [] { return false; };
    CHECK(prepare(ByteTokenizer(), options).complete);
    CHECK(read_file(folder / "out.bin") != "old");
  }
  SECTION("index") {
    folder.write("out.idx.json", "old");
    CHECK(error_of([&] {
            (void)prepare(ByteTokenizer(), options);
          }).starts_with("2|" + folder.str("out.idx.json: exists already")));
    CHECK(!fs::exists(folder / "out.bin.partial"));
    CHECK(read_file(folder / "out.idx.json") == "old");
  }
}

TEST_CASE("prepare refuses what it cannot do and leaves nothing behind", "[data][prepare]") {
  const test::Folder folder;
  PrepareOptions options;
  options.out = folder / "out.bin";
  options.stop = [] { return false; };
  SECTION("a damaged line") {
    std::string lines;
    for (int i = 0; i < 500; ++i) lines += "{\"text\":\"abc\"}\n";
    options.inputs = {folder.write("a.jsonl", lines + "{\"text\":\n")};
    CHECK(error_of([&] { (void)prepare(ByteTokenizer(), options); }).starts_with("3|" + folder.str("a.jsonl:501: ")));
  }
  SECTION("no text at all") {
    options.inputs = {folder.write("a.txt", ""), folder.write("b.jsonl", "\n")};
    CHECK(error_of([&] {
            (void)prepare(ByteTokenizer(), options);
          }).find("no text in it and 1 more (1 empty documents)") != std::string::npos);
  }
  SECTION("tokens as input") {
    options.inputs = {folder.write("a.bin", "xxxx")};
    CHECK(error_of([&] {
            (void)prepare(ByteTokenizer(), options);
          }).starts_with("3|" + folder.str("a.bin: holds tokens already")));
  }
  SECTION("a name that says something else") {
    options.inputs = {folder.write("a.txt", "x")};
    options.out = folder / "out.json";
    CHECK(error_of([&] { (void)prepare(ByteTokenizer(), options); }).starts_with("2|"));
  }
  SECTION("a tokenizer without EOS") {
    options.inputs = {folder.write("a.txt", "x")};
    ByteTokenizer tokenizer;
    tokenizer.no_eos();
    CHECK(error_of([&] { (void)prepare(tokenizer, options); }).starts_with("3|"));
  }
  CHECK(!fs::exists(folder / "out.bin"));
  CHECK(!fs::exists(folder / "out.bin.partial"));
}

TEST_CASE("a tokenizer whose ids pass its own vocabulary is found out", "[data][prepare]") {
  const test::Folder folder;
  PrepareOptions options;
  options.inputs = {folder.write("a.txt", "x")};
  options.out = folder / "out.bin";
  CHECK(error_of([&] { (void)prepare(ByteTokenizer(false, "small", 257), options); }) ==
        "1|the tokenizer gave the id 257, but says that its vocabulary is 257");
}

TEST_CASE("texts beyond the memory in flight go through one by one", "[data][prepare]") {
  const test::Folder folder;
  PrepareOptions options;
  std::string expected;
  for (int i = 0; i < 4; ++i) {
    const std::string text(static_cast<size_t>(i == 2 ? kBytesInFlight + 1000 : 1000), static_cast<char>('a' + i));
    options.inputs.push_back(folder.write(fmt::format("{}.txt", i), text));
    expected += text;
  }
  options.out = folder / "out.bin";
  CHECK(prepare(ByteTokenizer(), options).tokens == static_cast<int64_t>(expected.size()) + 4);
}

// prepare as a user runs it: exit codes, and a signal in the middle.
#include <signal.h>

#include <catch2/catch.hpp>

#include "test/unit/data_support.h"
#include "test/unit/process.h"

using namespace longlora;
using test::exit_code, test::start;

namespace {

const std::string kTokenizer = LONGLORA_SOURCE_DIR "/recipes/demo";

}  // namespace

TEST_CASE("the program stops at a signal with 75 and goes on to the same file", "[data][prepare][program]") {
  const test::Folder folder;
  const std::string source = read_file(LONGLORA_SOURCE_DIR "/core/data/prepare.cpp");
  std::string lines;
  for (int i = 0; i < 1500; ++i) lines += nlohmann::json{{"text", source.substr(static_cast<size_t>(i))}}.dump() + "\n";
  folder.write("a.jsonl.zst", test::zstd(lines));
  const auto prepare = [&](const std::string& out) {
    return start({"prepare", "--tokenizer", kTokenizer, "--out", folder.str(out), folder.str("*.zst")});
  };
  REQUIRE(exit_code(prepare("whole.bin")) == 0);

  const int number = GENERATE(SIGTERM, SIGINT, SIGKILL);
  const pid_t pid = prepare("parts.bin");
  while (!fs::exists(folder / "parts.bin.partial") && !fs::exists(folder / "parts.bin")) ::usleep(1000);
  ::kill(pid, number);
  const int code = exit_code(pid);
  CAPTURE(number, code);
  if (code != 0) {  // 0: it was done before the signal came
    CHECK(code == (number == SIGKILL ? 128 + SIGKILL : 75));
    CHECK(!fs::exists(folder / "parts.bin"));
    CHECK(exit_code(prepare("parts.bin")) == 0);
  }
  CHECK(read_file(folder / "parts.bin") == read_file(folder / "whole.bin"));
  CHECK(read_file(folder / "parts.idx.json") == read_file(folder / "whole.idx.json"));
  CHECK(!fs::exists(folder / "parts.bin.partial"));
  CHECK(exit_code(prepare("parts.bin")) == 2);
}

TEST_CASE("prepare's mistakes have their exit codes", "[data][prepare][program]") {
  const test::Folder folder;
  folder.write("a.txt", "x");
  folder.write("a.jsonl", "{");
  const auto code = [&](const std::string& input, const std::vector<std::string>& more) {
    std::vector<std::string> arguments = {"prepare", folder.str(input)};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return exit_code(start(arguments));
  };
  const std::string out = folder.str("out.bin");
  CHECK(code("a.txt", {"--out", out}) == 2);
  CHECK(code("a.txt", {"--tokenizer", kTokenizer}) == 2);
  CHECK(code("a.txt", {"--tokenizer", kTokenizer, "--out", out, "--bos", "perhaps"}) == 2);
  CHECK(code("a.txt", {"--tokenizer", folder.str(""), "--out", out}) == 3);
  CHECK(code("none.txt", {"--tokenizer", kTokenizer, "--out", out}) == 3);
  CHECK(code("a.jsonl", {"--tokenizer", kTokenizer, "--out", out}) == 3);
  CHECK(!fs::exists(out));
  CHECK(code("a.txt", {"--tokenizer", kTokenizer, "--out", out}) == 0);
  CHECK(fs::exists(out));
}

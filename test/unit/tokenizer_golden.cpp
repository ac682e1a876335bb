// Ids and texts against sentencepiece and tokenizers, on a hard corpus and on every code point.
#include <catch2/catch.hpp>

#include "core/text/regex.h"
#include "core/text/unicode.h"
#include "test/unit/compatibility.h"
#include "test/unit/tokenizer_fixtures.h"

using namespace longlora;
using namespace longlora::text;
namespace fixtures = tokenizer_fixtures;

namespace {

std::string mended(const std::string& bytes) {
  std::string text;
  append_valid_utf8(text, bytes);
  return text;
}

}  // namespace

TEST_CASE("tokenizers give the reference ids and texts", "[tokenizer]") {
  const auto texts = fixtures::corpus();
  const auto names = fixtures::names();
  REQUIRE(names.size() >= 10);
  for (const std::string& name : names) {
    DYNAMIC_SECTION(test::compatible("tokenizer", name, fmt::format("ids and texts of {} hard texts", texts.size()))) {
      const auto tokenizer = fixtures::load(name);
      const auto expected = nlohmann::json::parse(read_file(fixtures::folder(name) / "expected.json"));
      REQUIRE(expected.size() == texts.size());
      const bool is_json = name.starts_with("json");
      for (size_t i = 0; i < texts.size(); ++i) {
        INFO(name << ", text " << i << ": " << mended(texts[i]));
        const auto& want = expected[i];
        const auto ids = want["ids"].get<std::vector<int32_t>>();
        const auto text = want.value("text", mended(texts[i]));
        CHECK(tokenizer->encode(texts[i]) == ids);
        CHECK(tokenizer->decode(ids) == text);
        CHECK(fixtures::streamed(tokenizer, ids, true) == text);
        if (!is_json) continue;
        const auto parsed = want.value("parsed", ids);
        const auto shown = want.value("shown", text);
        CHECK(tokenizer->encode(texts[i], true) == parsed);
        CHECK(tokenizer->decode(parsed, false) == shown);
        CHECK(fixtures::streamed(tokenizer, parsed, false) == shown);
      }
    }
  }
}

TEST_CASE("character classes hold the reference's code points", "[tokenizer]") {
  std::string all;
  for (char32_t c = 0; c < 0x110000; ++c)
    if (c < 0xD800 || c > 0xDFFF) append_utf8(all, c);
  const auto classes = nlohmann::json::parse(read_file(fixtures::folder("classes.json")));
  REQUIRE(classes.size() > 10);
  RegexWorkspace workspace;
  for (const auto& item : classes.items()) {
    uint64_t count = 0, sum = 0;
    Regex(item.key(), "test").for_each_match(all, workspace, [&](size_t begin, size_t) {
      ++count;
      sum += utf8_at(all, begin);
    });
    INFO(item.key());
    CHECK(count == item.value()[0].get<uint64_t>());
    CHECK(sum == item.value()[1].get<uint64_t>());
  }
}

TEST_CASE("the demo's tokenizer has 1024 entries and loses nothing", "[tokenizer]") {
  const auto tokenizer = Tokenizer::load(fs::path(LONGLORA_SOURCE_DIR) / "recipes/demo");
  CHECK(tokenizer->vocab_size() == 1024);
  CHECK(tokenizer->bos() == 0);
  CHECK(tokenizer->eos() == 1);
  CHECK(tokenizer->adds_bos());
  CHECK(tokenizer->encode("def f(x):\n\treturn 1") == std::vector<int32_t>{291, 295, 957, 282, 406, 222, 18});
  for (const std::string& text : fixtures::corpus()) CHECK(tokenizer->decode(tokenizer->encode(text)) == mended(text));
}

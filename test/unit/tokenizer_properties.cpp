// Properties on random texts: nothing is lost, streams say the same as whole texts, threads do not meet, and
// the merge loop does what its definition says.
#include <thread>

#include <catch2/catch.hpp>

#include "core/base/random.h"
#include "core/text/merge.h"
#include "core/text/stream_decoder.h"
#include "core/text/unicode.h"
#include "test/unit/tokenizer_fixtures.h"

using namespace longlora;
using namespace longlora::text;
namespace fixtures = tokenizer_fixtures;

namespace {

constexpr uint64_t kSeed = 20240611;

std::string random_text(SplitMix& random, size_t characters) {
  static const std::vector<std::string> pool = {"a",
                                                "b",
                                                "the",
                                                " ",
                                                " ",
                                                "  ",
                                                "\n",
                                                "\r\n",
                                                "\t",
                                                ".",
                                                ",",
                                                "'s",
                                                "1",
                                                "234",
                                                "é",
                                                "e\u0301",
                                                "ß",
                                                "漢",
                                                "字",
                                                "한",
                                                "ا",
                                                "👍🏽",
                                                "👨‍👩‍👧",
                                                "</s>",
                                                "<s>",
                                                "<|eot_id|>",
                                                "\u00a0",
                                                "Ġ",
                                                "X",
                                                "Yz",
                                                "_",
                                                "\x01"};
  std::string text;
  for (size_t i = 0; i < characters; ++i) text += pool[random.below(pool.size())];
  return text;
}

}  // namespace

TEST_CASE("decoding what was encoded gives the text back", "[tokenizer]") {
  SplitMix random(kSeed);
  INFO("seed " << kSeed);
  for (const char* name :
       {"json-llama3", "json-gpt2", "json-nemo", "json-llama2", "json-metaspace", "sentencepiece-llama2"}) {
    const auto tokenizer = fixtures::load(name);
    for (int round = 0; round < 60; ++round) {
      std::string text = random_text(random, 1 + random.below(round < 50 ? 40 : 4000));
      // This kind adds no space where there is one, so it cannot tell " a" from "a".
      if (name == std::string("json-metaspace") && text[0] == ' ') text[0] = 'x';
      INFO(name << ": " << text.substr(0, 200));
      CHECK(tokenizer->decode(tokenizer->encode(text)) == text);
      if (!std::string(name).starts_with("json-llama2"))
        CHECK(tokenizer->decode(tokenizer->encode(text, true), false) == text);
    }
  }
}

TEST_CASE("a stream of any ids says what decoding them says", "[tokenizer]") {
  SplitMix random(kSeed + 1);
  INFO("seed " << kSeed + 1);
  for (const std::string& name : fixtures::names()) {
    const auto tokenizer = fixtures::load(name);
    for (int round = 0; round < 40; ++round) {
      std::vector<int32_t> ids(random.below(40));
      // Low ids are bytes in most of these vocabularies; some ids do not exist.
      for (auto& id : ids)
        id = static_cast<int32_t>(
            random.below(random.below(2) ? 259 : static_cast<uint64_t>(tokenizer->vocab_size()) + 5));
      for (const bool skip : {true, false}) {
        INFO(name);
        CHECK(fixtures::streamed(tokenizer, ids, skip) == tokenizer->decode(ids, skip));
      }
    }
  }
}

TEST_CASE("generated text comes out without delay", "[tokenizer]") {
  for (const char* name : {"json-llama3", "json-llama2", "sentencepiece-llama2"}) {
    const auto tokenizer = fixtures::load(name);
    StreamDecoder decoder(tokenizer);
    const auto ids = tokenizer->encode("The quick brown fox");
    std::string text;
    for (const int32_t id : ids) text += decoder.push(id);
    INFO(name);
    CHECK(text == "The quick brown fox");
  }
}

TEST_CASE("one tokenizer serves several threads", "[tokenizer]") {
  const auto texts = fixtures::corpus();
  for (const char* name : {"json-llama3", "json-llama2", "json-steps", "sentencepiece-llama2"}) {
    const auto tokenizer = fixtures::load(name);
    std::vector<std::vector<int32_t>> alone;
    for (const auto& text : texts) alone.push_back(tokenizer->encode(text, true));
    std::vector<int> wrong(4);
    std::vector<std::thread> threads;
    for (size_t t = 0; t < wrong.size(); ++t)
      threads.emplace_back([&, t] {
        for (size_t round = 0; round < 3; ++round)
          for (size_t i = 0; i < texts.size(); ++i) {
            const size_t at = (i * 7 + t * 31) % texts.size();
            const auto ids = tokenizer->encode(texts[at], true);
            wrong[t] += ids != alone[at] || tokenizer->decode(ids) != tokenizer->decode(alone[at]);
          }
      });
    for (auto& thread : threads) thread.join();
    INFO(name);
    CHECK(wrong == std::vector<int>(4));
  }
}

TEST_CASE("merging takes the lowest rank first, of equal ranks the leftmost", "[tokenizer]") {
  SplitMix random(kSeed + 2);
  INFO("seed " << kSeed + 2);
  for (int round = 0; round < 200; ++round) {
    std::vector<Merge> merges;
    int32_t next = 4;
    for (int i = 0; i < 30; ++i) {
      const Merge merge{static_cast<int32_t>(random.below(static_cast<uint64_t>(next))),
                        static_cast<int32_t>(random.below(static_cast<uint64_t>(next))), next};
      if (std::none_of(merges.begin(), merges.end(),
                       [&](const Merge& m) { return m.left == merge.left && m.right == merge.right; }))
        merges.push_back(merge), ++next;
    }
    const MergeTable table(merges);
    Merger merger;
    for (const size_t length : {0, 1, 2, 7, 47, 48, 49, 300}) {
      std::vector<int32_t> symbols(length);
      for (auto& s : symbols) s = static_cast<int32_t>(random.below(4));
      merger.symbols = symbols;
      merger.merge(table);
      for (bool again = true; again;) {  // the definition, one merge at a time
        again = false;
        for (const Merge& merge : merges) {
          for (size_t i = 0; i + 1 < symbols.size() && !again; ++i)
            if (symbols[i] == merge.left && symbols[i + 1] == merge.right) {
              symbols[i] = merge.result;
              symbols.erase(symbols.begin() + static_cast<ptrdiff_t>(i) + 1);
              again = true;
            }
          if (again) break;
        }
      }
      CHECK(merger.symbols == symbols);
    }
  }
}

// What is read from a model folder: special and added tokens, which file wins, fingerprints, and clear
// errors.
#include <catch2/catch.hpp>

#include "test/unit/tokenizer_fixtures.h"

using namespace longlora;
using namespace longlora::text;
using nlohmann::json;
namespace fixtures = tokenizer_fixtures;
using Ids = std::vector<int32_t>;

TEST_CASE("special tokens come from the folder's files", "[tokenizer]") {
  SECTION("Llama-2 as saved with a [PAD] added") {
    const auto tokenizer = fixtures::load("sentencepiece-llama2");
    CHECK(tokenizer->bos() == 1);
    CHECK(tokenizer->eos() == 2);
    CHECK(tokenizer->adds_bos());
    CHECK(tokenizer->vocab_size() == 901);
    CHECK(tokenizer->token_id("[PAD]") == 900);
    CHECK(tokenizer->token_id("</s>") == 2);
    CHECK(tokenizer->token_id("<0x0A>") == 13 - 13 + 3 + 10);
    CHECK_FALSE(tokenizer->token_id("no such token"));
    CHECK(tokenizer->encode("[PAD]", true) == Ids{900});
  }
  SECTION("a bare SentencePiece model") {
    const auto tokenizer = fixtures::load("sentencepiece-normalized");
    CHECK(tokenizer->bos() == 1);
    CHECK(tokenizer->eos() == 2);
    CHECK(tokenizer->vocab_size() == 900);
  }
  SECTION("add_bos_token decides") {
    CHECK_FALSE(fixtures::load("sentencepiece-no-prefix")->adds_bos());
    CHECK(fixtures::load("json-nemo")->adds_bos());
    CHECK_FALSE(fixtures::load("json-gpt2")->adds_bos());
    CHECK(fixtures::load("json-llama3")->adds_bos());  // from the post-processor
  }
  SECTION("Llama-3") {
    const auto tokenizer = fixtures::load("json-llama3");
    CHECK(tokenizer->bos() == tokenizer->token_id("<|begin_of_text|>"));
    CHECK(tokenizer->eos() == tokenizer->token_id("<|eot_id|>"));
    CHECK(tokenizer->vocab_size() == 705);
  }
  SECTION("a special token that is only named gets the next id") {
    const fixtures::Copy copy("json-gpt2");
    copy.write("special_tokens_map.json", R"({"pad_token": {"content": "<pad>", "lstrip": false}})");
    const auto tokenizer = Tokenizer::load(copy.path);
    CHECK(tokenizer->token_id("<pad>") == fixtures::load("json-gpt2")->vocab_size());
    CHECK(tokenizer->vocab_size() == fixtures::load("json-gpt2")->vocab_size() + 1);
  }
  SECTION("ids of generation_config.json and config.json where no token is named") {
    const fixtures::Copy copy("json-metaspace");
    copy.write("config.json", R"({"bos_token_id": 1, "eos_token_id": 5})");
    copy.write("generation_config.json", R"({"eos_token_id": [2, 7]})");
    const auto tokenizer = Tokenizer::load(copy.path);
    CHECK(tokenizer->bos() == 1);
    CHECK(tokenizer->eos() == 2);
  }
}

TEST_CASE("SentencePiece text between special tokens keeps its spaces", "[tokenizer]") {
  for (const char* name : {"sentencepiece-llama2", "sentencepiece-no-prefix"}) {
    const auto tokenizer = fixtures::load(name);
    for (const std::string text :
         {"<s>Hello there</s><s> two  spaces</s>", "a</s> b", "</s></s>x", "[INST] <s>[INST] </s>"}) {
      INFO(name << ": " << text);
      const auto ids = tokenizer->encode(text, true);
      CHECK(tokenizer->decode(ids, false) == text);
      CHECK(std::count(ids.begin(), ids.end(), 2) > 0);
    }
  }
  // "legacy": every stretch begins with the dummy space; otherwise only the text does.
  const auto legacy = fixtures::load("sentencepiece-llama2");
  CHECK(legacy->encode("</s>Hello", true).at(1) == legacy->encode("Hello").at(0));
  const fixtures::Copy copy("sentencepiece-llama2");
  auto config = copy.json("tokenizer_config.json");
  config["legacy"] = false;
  copy.write("tokenizer_config.json", config.dump());
  const auto modern = Tokenizer::load(copy.path);
  CHECK(modern->encode("Hello") == legacy->encode("Hello"));
  CHECK(modern->encode("</s>Hello", true) != legacy->encode("</s>Hello", true));
  CHECK(modern->encode("</s> Hello", true).at(1) == legacy->encode("Hello").at(0));
  CHECK(modern->decode(modern->encode("a</s>b</s> c", true), false) == "a</s>b</s> c");
  CHECK(modern->fingerprint() != legacy->fingerprint());
}

TEST_CASE("tokenizer.model is taken before tokenizer.json, unless it is a list of ranks", "[tokenizer]") {
  const fixtures::Copy copy("json-llama3");
  const auto json_print = Tokenizer::load(copy.path)->fingerprint();
  copy.write("tokenizer.model", "IQ== 0\nIg== 1\n");
  CHECK(Tokenizer::load(copy.path)->fingerprint() == json_print);
  fs::copy_file(fixtures::folder("sentencepiece-normalized") / "tokenizer.model", copy.path / "tokenizer.model",
                fs::copy_options::overwrite_existing);
  fs::remove(copy.path / "tokenizer_config.json");
  CHECK(Tokenizer::load(copy.path)->vocab_size() == 900);
}

TEST_CASE("the fingerprint follows the ids, not the layout", "[tokenizer]") {
  const fixtures::Copy copy("json-llama3");
  const auto before = Tokenizer::load(copy.path)->fingerprint();
  auto file = copy.json("tokenizer.json");
  file["truncation"] = {{"max_length", 5}};
  for (auto& merge : file["model"]["merges"]) {
    const auto text = merge.get<std::string>();
    merge = {text.substr(0, text.find(' ')), text.substr(text.find(' ') + 1)};
  }
  copy.write("tokenizer.json", file.dump(4));
  CHECK(Tokenizer::load(copy.path)->fingerprint() == before);
  std::swap(file["model"]["merges"][0], file["model"]["merges"][1]);
  copy.write("tokenizer.json", file.dump());
  CHECK(Tokenizer::load(copy.path)->fingerprint() != before);
}

TEST_CASE("what is not supported or damaged is named", "[tokenizer]") {
  struct Case {
    const char* pointer;  // what is put where in json-llama3's tokenizer.json
    json value;
    const char* named;  // what the message must say
  };
  const Case cases[] = {
      {"/normalizer",
       {{"type", "Precompiled"}, {"precompiled_charsmap", "AA=="}},
       "normalizer: the type 'Precompiled'"},
      {"/pre_tokenizer/pretokenizers/0",
       {{"type", "BertPreTokenizer"}},
       "pre_tokenizer.pretokenizers[0]: the type 'BertPreTokenizer'"},
      {"/pre_tokenizer/pretokenizers/0/behavior", "Sideways", "'Sideways'"},
      {"/pre_tokenizer/pretokenizers/0/speed", 9, "'speed'"},
      {"/pre_tokenizer/pretokenizers/0/pattern", {{"Regex", "a\\b"}}, "'\\b'"},
      {"/pre_tokenizer/pretokenizers/0/pattern", {{"Regex", "(?<n>a)"}}, "(?<n"},
      {"/pre_tokenizer/pretokenizers/0/pattern", {{"Regex", "(a"}}, "unclosed group"},
      {"/pre_tokenizer/pretokenizers/0/pattern", {{"Regex", "\\p{Nonsense}"}}, "\\p{Nonsense}"},
      {"/decoder", {{"type", "WordPiece"}, {"prefix", "##"}, {"cleanup", true}}, "decoder: the type 'WordPiece'"},
      {"/post_processor", {{"type", "BertProcessing"}}, "post_processor: the type 'BertProcessing'"},
      {"/model/type", "Unigram", "model: the type 'Unigram'"},
      {"/model/dropout", 0.1, "'dropout'"},
      {"/model/end_of_word_suffix", "</w>", "'end_of_word_suffix'"},
      {"/model/novelty", true, "'novelty'"},
      {"/model/merges/3", "one two three", "merges[3]"},
      {"/model/merges/3", "Ġ qqqq", "'qqqq' is not in the vocabulary"},
      {"/model/vocab/new", 5, "both have the id 5"},
      {"/model/vocab/new", -5, "out of range"},
      {"/model/vocab/new", "five", "no whole number"},
      {"/added_tokens/0/id", 9000, "has the id 9000"},
      {"/added_tokens/0/color", "red", "'color'"},
      {"/version", "2.0", "'2.0'"},
      {"/quirks", json::object(), "'quirks'"},
      {"/model", nullptr, "'model' is missing"},
  };
  for (const Case& c : cases) {
    const fixtures::Copy copy("json-llama3");
    auto file = copy.json("tokenizer.json");
    file[json::json_pointer(c.pointer)] = c.value;
    copy.write("tokenizer.json", file.dump());
    const std::string message = copy.load_error();
    INFO(c.pointer << " -> " << message);
    CHECK_THAT(message, Catch::Contains(c.named) && Catch::Contains("tokenizer.json"));
    CHECK(message.find('\n') == std::string::npos);
  }
}

TEST_CASE("damaged and missing tokenizer files are named", "[tokenizer]") {
  const fixtures::Copy empty("");
  CHECK_THAT(empty.load_error(), Catch::Contains("no tokenizer here"));
  empty.write("tokenizer.json", R"({"version": "1.0",)");
  CHECK_THAT(empty.load_error(), Catch::Contains("not valid JSON"));
  empty.write("tokenizer.model", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 499723\n");
  CHECK_THAT(empty.load_error(), Catch::Contains("tokenizer.model") && Catch::Contains("Git LFS"));
  empty.write("tokenizer.model", "");
  CHECK_THAT(empty.load_error(), Catch::Contains("tokenizer.model"));

  const fixtures::Copy cut("sentencepiece-llama2");
  cut.write("tokenizer.model", read_file(cut.path / "tokenizer.model").substr(0, 5000));
  CHECK_THAT(cut.load_error(), Catch::Contains("tokenizer.model"));

  const fixtures::Copy gap("sentencepiece-llama2");
  gap.write("added_tokens.json", R"({"[PAD]": 950})");
  CHECK_THAT(gap.load_error(), Catch::Contains("[PAD]") && Catch::Contains("950") && Catch::Contains("900"));
  gap.write("added_tokens.json", R"({"a": 900, "b": 900})");
  CHECK_THAT(gap.load_error(), Catch::Contains("belongs to"));

  CHECK_THROWS_AS(Tokenizer::load(empty.path / "nowhere"), Error);
}

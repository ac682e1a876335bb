// The retrieval tasks' prompts and scores against their reference implementations (scripts/goldens/eval_prompts.py), and
// what every prompt must be: as long as asked for, whole sentences around the needle, the same for the same seed.
#include <fmt/ranges.h>
#include <algorithm>
#include <catch2/catch.hpp>
#include <set>

#include "core/base/hash.h"
#include "core/eval/tasks/longchat.h"
#include "core/eval/tasks/needle.h"
#include "core/eval/tasks/passkey.h"
#include "core/eval/tasks/ruler.h"
#include "core/eval/tasks/score.h"
#include "test/unit/temporary_folder.h"
#include "test/unit/tokenizer_fixtures.h"

using namespace longlora;
using namespace longlora::eval;
namespace fixtures = tokenizer_fixtures;

namespace {

const nlohmann::json& golden() {
  static const auto all =
      nlohmann::json::parse(read_file(fs::path(LONGLORA_SOURCE_DIR) / "test/golden/eval/prompts.json"));
  return all;
}

using Strings = std::vector<std::string>;

// With BOS and without, with and without a space put in front, bytes, whole words.
const Strings kTokenizers = {
    "sentencepiece-llama2", "sentencepiece-no-prefix", "json-llama2", "json-llama3", "json-gpt2", "json-nemo"};

std::string plain(const Prompt& prompt) {
  return prompt.question + prompt.lead;
}

// Sentences 0 ... count - 1 in one.
std::string text_of(const Haystack& haystack, uint64_t stream, int64_t count) {
  std::string text;
  for (int64_t i = 0; i < count; ++i) text += haystack.sentence(stream, i);
  return text;
}

// Every task there is, in small.
std::vector<std::pair<Task, int64_t>> tasks(const PromptEncoder& encoder, const Haystack& prose,
                                            const Haystack& noise) {
  NeedleOptions brief;  // its own answer is longer than what may be written
  brief.max_new_tokens = 1;
  std::vector<std::pair<Task, int64_t>> all = {{passkey_task({.exact = true, .seed = 3}, encoder, noise), 900},
                                               {passkey_task({.exact = true, .seed = 3}, encoder, prose), 900},
                                               {needle_task({}, encoder, prose), 1200},
                                               {needle_task(brief, encoder, prose), 1200},
                                               {lines_task(3, encoder), 1800},
                                               {topics_task(3, encoder), 4000},
                                               {vt_task(3, encoder), 3000},
                                               {cwe_task(3, encoder), 4000},
                                               {fwe_task(3, encoder), 1800}};
  for (const char* name :
       {"niah_single_2", "niah_single_3", "niah_multikey_1", "niah_multikey_2", "niah_multivalue", "niah_multiquery"})
    all.emplace_back(niah_task(name, *niah_options(name), 3, encoder, prose), 1800);
  all.emplace_back(niah_task("niah_single_1", *niah_options("niah_single_1"), 3, encoder, noise), 1800);
  return all;
}

}  // namespace

TEST_CASE("the passkey prompt, its places and keys are LongLoRA's for every seed", "[eval]") {
  for (const auto& want : golden()["passkey"]) {
    const LongLoraPasskey drawn = longlora_passkey(want["length"], want["seed"].get<uint32_t>());
    INFO("length " << want["length"] << ", seed " << want["seed"]);
    CHECK(drawn.garbage == want["garbage"].get<int64_t>());
    CHECK(drawn.before == want["before"].get<int64_t>());
    CHECK(drawn.key == want["key"].get<std::string>());
    const Prompt prompt = longlora_prompt(drawn, -1);
    const std::string text = plain(prompt);
    CHECK(text.size() == want["characters"].get<size_t>());
    CHECK(text.substr(text.find("The pass key is") - 40, 150) == want["around"].get<std::string>());
    CHECK(text.ends_with(want["end"].get<std::string>()));
    CHECK(prompt.answer == " " + drawn.key);
    if (want.contains("prompt")) CHECK(text == want["prompt"].get<std::string>());
  }
}

TEST_CASE("prompts of the needle, LongEval and RULER are the reference's, word for word", "[eval]") {
  for (const auto& want : golden()["needle"]) {
    NeedleOptions options;
    options.question = want["question"].get<std::string>();
    CHECK(plain(needle_prompt(options, want["context"].get<std::string>())) == want["prompt"].get<std::string>());
  }
  for (const auto& want : golden()["lines"]) {
    std::vector<Line> lines;
    for (const auto& line : want["lines"]) lines.push_back({line[0], line[1]});
    const Prompt prompt = lines_prompt(lines, want["asked"].get<size_t>());
    CHECK(plain(prompt) == want["prompt"].get<std::string>());
    CHECK(prompt.answer == want["answer"].get<std::string>());
  }
  for (const auto& want : golden()["topics"]) {
    const Prompt prompt = topics_prompt(want["conversations"].get<Strings>(), want["topic"].get<std::string>());
    CHECK(plain(prompt) == want["prompt"].get<std::string>());
    CHECK(prompt.answer == want["answer"].get<std::string>());
  }
  for (const auto& want : golden()["niah"]) {
    INFO(want["task"] << " " << want["places"]);
    const auto options = niah_options(want["task"].get<std::string>());
    REQUIRE(options);
    const auto sentences = want["sentences"].get<Strings>(), needles = want["needles"].get<Strings>();
    const auto places = want["places"].get<std::vector<int64_t>>();
    const std::string context = want["haystack"] == "prose" ? needles_in_prose(sentences, needles, places)
                                                            : needles_in_lines(sentences, needles, places);
    CHECK(context == want["context"].get<std::string>());
    CHECK(plain(niah_prompt(*options, context, want["queries"].get<Strings>(), want["answers"].get<Strings>())) ==
          want["prompt"].get<std::string>());
  }
  CHECK(niah_needle({"quiet-harbor", "1234567"}, KeyKind::numbers) ==
        golden()["niah"][0]["needles"][0].get<std::string>());
  for (const auto& want : golden()["vt"]) {
    const auto variables = want["variables"].get<Strings>();
    const auto places = want["places"].get<std::vector<int64_t>>();
    const std::string value = want["value"];
    const std::string context = vt_context(variables, value, want["noises"].get<int64_t>(), places);
    CHECK(context == want["context"].get<std::string>());
    CHECK(plain(vt_prompt(context, variables, value)) == want["prompt"].get<std::string>());
    CHECK(vt_prompt(context, variables, value).answer == want["shown"].get<std::string>());
  }
  for (const auto& want : golden()["cwe"]) {
    const Prompt prompt = cwe_prompt(want["words"].get<Strings>(), want["common"].get<Strings>());
    CHECK(plain(prompt) == want["prompt"].get<std::string>());
    CHECK(prompt.answer == want["shown"].get<std::string>());
  }
  for (const auto& want : golden()["fwe"])
    CHECK(plain(fwe_prompt(want["words"].get<Strings>(), want["answers"].get<Strings>())) ==
          want["prompt"].get<std::string>());
  for (const auto& want : golden()["fwe_counts"])
    CHECK(fwe_counts(want["n"].get<int64_t>(), want["vocabulary"].get<int64_t>()) ==
          want["counts"].get<std::vector<int64_t>>());
}

TEST_CASE("scores are the published ones on hand-made answers", "[eval]") {
  for (const auto& want : golden()["scores"]) {
    const auto response = want["response"].get<std::string>();
    const auto expected = want["expected"].get<Strings>();
    INFO(response);
    CHECK(match_all(response, expected) == Approx(want["all"].get<double>()));
    CHECK(match_part(response, expected) == want["part"].get<double>());
    CHECK(match_last_number(response, expected.front()) == want["last_number"].get<double>());
    CHECK(match_words(response, expected.front()) == Approx(want["words"].get<double>()));
  }
  CHECK(match_topic("The first topic was The History of Bridges.", "the history of bridges") == 1);
  CHECK(match_topic("history of\nbridges!", "the history of bridges") == 1);
  CHECK(match_topic("We discussed the history of bridge building.", "the history of bridges") == 0);
  CHECK(match_topic("prehistory of bridges", "the history of bridges") == 0);
}

TEST_CASE("a prompt and its answer fill the length asked for, whatever the tokenizer", "[eval]") {
  const Haystack prose = Haystack::generated(), noise = Haystack::noise();
  for (const std::string& name : kTokenizers) {
    const auto tokenizer = fixtures::load(name);
    const PromptEncoder encoder(*tokenizer, std::nullopt);
    const bool knows_digits = tokenizer->decode(tokenizer->encode("0123456789")).ends_with("0123456789");
    CHECK((knows_digits || name == "sentencepiece-no-prefix"));
    for (const bool exact_text : {true, false}) {
      const Task task = passkey_task({.exact = true, .seed = 9}, encoder, exact_text ? noise : prose);
      for (const int64_t length : {700, 701, 702, 703, 999}) {
        for (const double depth : {0.0, 37.5, 100.0}) {
          INFO(name << " " << length << " " << depth);
          const Sample sample = task.make({length, depth, 1});
          CHECK(static_cast<int64_t>(sample.prompt.size()) + sample.max_new_tokens == length);
          REQUIRE(sample.prompt.size() < sample.whole.size());
          // The key's tokens are its own, but for a tokenizer that joins "is" and the space behind it.
          const auto over = static_cast<int64_t>(sample.prompt.size() - answer_begin(sample));
          CHECK(over == (name == "json-llama2" ? 1 : 0));
          CHECK(static_cast<int64_t>(sample.whole.size()) == length - over);
          if (knows_digits)
            CHECK(
                tokenizer->decode(std::span(sample.whole).subspan(sample.prompt.size())).ends_with(sample.expected[0]));
          CHECK(sample.expected[0].size() == 5);
        }
      }
    }
  }
  // The others are filled by whole sentences, lines or words: never longer, and not a third shorter.
  const auto tokenizer = fixtures::load("json-llama2");
  const PromptEncoder encoder(*tokenizer, std::nullopt);
  for (const auto& [task, length] : tasks(encoder, prose, noise)) {
    INFO(task.name);
    const Sample sample = task.make({length, task.takes_depth ? 50.0 : -1.0, 0});
    const auto tokens = static_cast<int64_t>(sample.prompt.size()) + sample.max_new_tokens;
    CHECK(std::max(tokens, static_cast<int64_t>(sample.whole.size())) <= length);
    CHECK(tokens > length * 2 / 3);
  }
}

TEST_CASE("a prompt depends on seed, length, depth and trial alone, and holds what is asked for", "[eval]") {
  const Haystack prose = Haystack::generated(), noise = Haystack::noise();
  const auto tokenizer = fixtures::load("json-llama2");
  const PromptEncoder encoder(*tokenizer, std::nullopt);
  const auto first = tasks(encoder, prose, noise), second = tasks(encoder, prose, noise);
  for (size_t i = 0; i < first.size(); ++i) {
    const auto& [task, length] = first[i];
    INFO(task.name);
    const double depth = task.takes_depth ? 50 : -1;
    (void)second[i].first.make({length + 64, depth, 5});  // what was made before does not matter
    const Sample a = task.make({length, depth, 1}), b = second[i].first.make({length, depth, 1}),
                 other = task.make({length, depth, 2});
    CHECK(a.prompt == b.prompt);
    CHECK(a.expected == b.expected);
    CHECK(a.prompt != other.prompt);
    const std::string text = tokenizer->decode(a.prompt);
    if (task.name == "needle") continue;  // words of the answer, not its text
    for (const std::string& expected : a.expected) CHECK(text.find(expected) != std::string::npos);
    CHECK(task.score(a, fmt::format(" {}", fmt::join(a.expected, " ")), std::span(a.whole).subspan(a.prompt.size())) ==
          1);
    CHECK(task.score(a, "no idea", std::span(a.whole).first(1)) == 0);
  }
}

TEST_CASE("a needle stands between two sentences, at its share of the text", "[eval]") {
  const Strings sentences = {"One. ", "Two two. ", "Three. ", "Four.\n\n", "Five. "};
  CHECK(with_needle(sentences, "|", 0) == "|One. Two two. Three. Four.\n\nFive. ");
  CHECK(with_needle(sentences, "|", 30) == "One. |Two two. Three. Four.\n\nFive. ");
  CHECK(with_needle(sentences, "|", 50) == "One. Two two. |Three. Four.\n\nFive. ");
  CHECK(with_needle(sentences, "|", 99) == "One. Two two. Three. Four.\n\n|Five. ");
  CHECK(with_needle(sentences, "|", 100) == "One. Two two. Three. Four.\n\nFive. |");

  const auto tokenizer = fixtures::load("json-llama2");
  const PromptEncoder encoder(*tokenizer, std::nullopt);
  const Haystack haystack = Haystack::generated();
  const Task needle = needle_task({}, encoder, haystack), passkey = passkey_task({.exact = true}, encoder, haystack);
  for (const double depth : {0.0, 20.0, 50.0, 90.0, 100.0}) {
    for (const auto& [task, mark, least_before] : {std::tuple{&needle, "\nThe best thing to do", size_t{42}},
                                                   std::tuple{&passkey, "\nThe pass key is", size_t{158}}}) {
      const std::string text = tokenizer->decode(task->make({1500, depth, 0}).prompt);
      const size_t at = text.find(mark);
      REQUIRE(at != std::string::npos);
      const double share = static_cast<double>(at) / static_cast<double>(text.size());
      INFO(task->name << " at " << depth << ": " << share);
      CHECK(std::abs(share - depth / 100) < 0.15);
      if (depth == 100 || at < least_before) continue;
      const std::string before = without_trailing_space(text.substr(0, at));
      CHECK((before.ends_with('.') || before.ends_with("<book>")));
    }
  }
}

TEST_CASE("sentences are the text, cut at their ends, also where there are none", "[eval]") {
  const auto joined = [](const Strings& parts) {
    std::string text;
    for (const auto& part : parts) text += part;
    return text;
  };
  const std::string text = "He said \"Go!\" and went. (Why?) 3.14 is pi...  Then\nhe stopped.\n\nA title\n\nNo end";
  CHECK(split_sentences(text) == Strings{"He said \"Go!\" ", "and went. ", "(Why?) ", "3.14 is pi...  ",
                                         "Then\nhe stopped.\n\n", "A title\n\n", "No end"});
  std::string words, solid;
  for (int i = 0; i < 2000; ++i) words += "word ";
  for (int i = 0; i < 2000; ++i) solid += "\xE6\xBC\xA2";  // one character of three bytes
  for (const std::string& one : {text, words, solid}) {
    const Strings parts = split_sentences(one);
    CHECK(joined(parts) == one);
    for (const std::string& part : parts) {
      CHECK(part.size() <= 2100);
      CHECK(text::is_valid_utf8(part));
    }
  }
  std::set<std::string> different;
  for (int64_t i = 0; i < 1000; ++i) different.insert(Haystack::generated().sentence(7, i));
  CHECK(different.size() == 1000);
  CHECK(split_sentences(text_of(Haystack::generated(), 7, 200)).size() == 200);
}

TEST_CASE("a haystack of files is read as data are, repeated, and known by its text", "[eval]") {
  const test::TemporaryFolder folder;
  test::write_file(folder.path() / "a.txt", "One. Two.");
  test::write_file(folder.path() / "b.jsonl", "{\"text\": \"Three.\"}\n{\"text\": \"Four.\"}\n");
  const Strings both = {(folder.path() / "a.txt").string(), (folder.path() / "b.jsonl").string()};
  const Haystack haystack = Haystack::named(both, 1000);
  CHECK(text_of(haystack, 0, 5) == "One. Two.\n\nThree.\n\nFour.\n\nOne. ");
  CHECK(haystack.name() != Haystack::named(both, 12).name());
  CHECK(text_of(Haystack::named(both, 12), 0, 3) == "One. Two.\n\nT");
  test::write_file(folder.path() / "a.txt", " \n");
  CHECK_THROWS_WITH(Haystack::named(std::span(both).first(1), 1000), Catch::Contains("has no text"));
}

TEST_CASE("a chat format wraps the question, and the answer begins in the assistant's turn", "[eval]") {
  const auto tokenizer = fixtures::load("json-llama3");
  const PromptEncoder encoder(*tokenizer, text::ChatFormat::llama3);
  const Sample sample = encoder.complete(passkey_prompt("a", "b", "12345"), {});
  const std::string text = tokenizer->decode(sample.prompt, false), whole = tokenizer->decode(sample.whole, false);
  CHECK(text.starts_with("<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nThere is an important info"));
  CHECK(text.ends_with(
      "What is the pass key?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n The pass key is"));
  CHECK(whole == text + " 12345");
  CHECK(std::count(sample.prompt.begin(), sample.prompt.end(), *tokenizer->bos()) == 1);
  const auto other = fixtures::load("json-gpt2");
  CHECK_THROWS_WITH(PromptEncoder(*other, text::ChatFormat::llama3), Catch::Contains("start_header_id"));
}

TEST_CASE("a length that a task cannot have is refused with the least that it can", "[eval]") {
  const auto tokenizer = fixtures::load("json-llama2");
  const PromptEncoder encoder(*tokenizer, std::nullopt);
  const Haystack prose = Haystack::generated(), noise = Haystack::noise();
  for (const auto& [task, length] : tasks(encoder, prose, noise)) {
    INFO(task.name);
    CHECK_THROWS_WITH(task.make({40, task.takes_depth ? 50.0 : -1.0, 0}),
                      Catch::Contains("too short for") && Catch::Contains("tokens at least"));
  }
  CHECK_THROWS_WITH(topics_task(1, encoder).make({10000000, -1, 0}), Catch::Contains("too long for the topics task"));
  CHECK_THROWS_WITH(passkey_task({}, encoder, noise).make({200, -1, 0}), Catch::Contains("too short for LongLoRA's"));
}

TEST_CASE("the largest size that fits is found", "[eval]") {
  for (int64_t room = 0; room < 200; ++room) {
    const auto tokens = [](int64_t n) { return 3 * n + 7; };
    const int64_t want = room < 10 ? -1 : std::min<int64_t>(40, (room - 7) / 3);
    CHECK(fit(1, 40, room, tokens) == want);
  }
}

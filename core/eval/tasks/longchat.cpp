#include "core/eval/tasks/longchat.h"

#include <fmt/format.h>
#include <array>

#include "core/eval/tasks/score.h"
#include "core/eval/tasks/words.h"

namespace longlora::eval {
namespace {

constexpr int64_t kLinesAnswer = 100, kTopicsAnswer = 50;

constexpr std::array<const char*, 12> kAspects = {"the history of", "the benefits of",    "the art of",
                                                  "the cost of",    "the future of",      "the science behind",
                                                  "the dangers of", "common myths about", "the economics of",
                                                  "new ideas in",   "the ethics of",      "how children learn about"};
constexpr std::array<const char*, 48> kSubjects = {
    "bridge building", "vegetable gardens", "public libraries", "night trains",
    "tea ceremonies",  "mountain climbing", "honey bees",       "folk music",
    "electric cars",   "coral reefs",       "bread baking",     "chess",
    "lighthouses",     "wind power",        "space travel",     "clay pottery",
    "river boats",     "city parks",        "long walks",       "winter sports",
    "map making",      "paper recycling",   "solar panels",     "wool weaving",
    "street markets",  "film photography",  "salt mining",      "bird watching",
    "hot springs",     "glass blowing",     "school lunches",   "deep sea fishing",
    "amateur radio",   "wooden toys",       "desert farming",   "volcanoes",
    "home repairs",    "puppet theaters",   "bicycle lanes",    "sign languages",
    "cheese making",   "weather forecasts", "sailing ships",    "mushroom hunting",
    "science museums", "public fountains",  "letter writing",   "ice harvesting"};
constexpr std::array<const char*, 4> kQuestions = {
    "What should a beginner know about {}?", "Why do so many people care about {}?",
    "What has changed in recent years when it comes to {}?", "Could you give me an example that has to do with {}?"};
constexpr std::array<const char*, 4> kAnswers = {
    "A good start is to read what people with experience have written about {}, to try a small part of it oneself, and "
    "to ask questions early. Most mistakes come from haste, and most of them are easy to mend.",
    "Many people meet {} in daily life without noticing. It touches work, family and leisure at once, it costs less "
    "than one would think, and those who have tried it seldom stop talking about it.",
    "There are more studies than before, tools have become cheaper, and people share what they know about {} across "
    "borders. At the same time some old habits have turned out to be better than their reputation.",
    "In one small town a group of neighbors met every week because of {}. After a year they had learned from their "
    "failures, written a short guide, and found that half of the town wanted to take part."};

std::string with(const char* text, const std::string& subject) {
  return fmt::format(fmt::runtime(text), subject);
}

}  // namespace

Prompt lines_prompt(std::span<const Line> lines, size_t asked) {
  std::string text =
      "Below is a record of lines I want you to remember. Each line begins with 'line <line index>' and contains a "
      "'<REGISTER_CONTENT>' at the end of the line as a numerical value. For each line index, memorize its "
      "corresponding <REGISTER_CONTENT>. At the end of the record, I will ask you to retrieve the corresponding "
      "<REGISTER_CONTENT> of a certain line index. Now the record start:\n\n";
  for (const Line& line : lines) text += fmt::format("line {}: REGISTER_CONTENT is <{}>\n", line.name, line.value);
  text += fmt::format("\nNow the record is over. Tell me what is the <REGISTER_CONTENT> in line {}? I need the number.",
                      lines[asked].name);
  return {.question = text, .lead = "", .answer = " " + lines[asked].value};
}

Task lines_task(uint64_t seed, const PromptEncoder& encoder) {
  Task task = seeded_task("lines", seed, [&encoder](const Cell& cell, uint64_t stream) {
    SplitMix random(stream);
    const std::vector<int64_t> names = sample(random, kWordPairs, kWordPairs);
    std::vector<Line> lines;
    const double where = random.uniform();
    size_t asked = 0;
    const auto prompt = [&](int64_t n) {
      while (static_cast<int64_t>(lines.size()) < n)
        lines.push_back({word_pair(names[lines.size()]), std::to_string(1 + random.below(50000))});
      asked = static_cast<size_t>(where * static_cast<double>(n));
      return lines_prompt(std::span(lines).first(static_cast<size_t>(n)), asked);
    };
    const int64_t n = fill("the lines task", cell, 1, kWordPairs, encoder, kLinesAnswer, prompt);
    const Prompt text = prompt(n);
    Sample made;
    made.max_new_tokens = kLinesAnswer;
    made.expected = {lines[asked].value};
    made.depth = n > 1 ? 100.0 * static_cast<double>(asked) / static_cast<double>(n - 1) : 50;
    made.facts = {{"needle", fmt::format("line {}: REGISTER_CONTENT is <{}>", lines[asked].name, lines[asked].value)},
                  {"lines", n}};
    return encoder.complete(text, std::move(made));
  });
  task.score = [](const Sample& made, const std::string& response, std::span<const int32_t>) {
    return match_last_number(response, made.expected.front());
  };
  return task;
}

std::string topic(int64_t i) {
  const auto at = static_cast<size_t>(i);
  return fmt::format("{} {}", kAspects.at(at / kSubjects.size()), kSubjects[at % kSubjects.size()]);
}

std::string conversation(int64_t i, uint64_t seed) {
  SplitMix random(derive_seed(seed, {static_cast<uint64_t>(i)}));
  const std::string name = topic(i);
  std::string text = fmt::format(
      "USER: I would like to discuss the topic of {}. \n ASSISTANT: Sure, I am glad to talk about that. What would you "
      "like to know? \n ",
      name);
  std::vector<size_t> order = {0, 1, 2, 3};
  shuffle(order, random);
  for (size_t turn = 0; turn < 3; ++turn) {
    text += fmt::format("USER: {} \n ASSISTANT: {} \n ", with(kQuestions[order[turn]], name),
                        with(kAnswers[order[turn]], name));
  }
  return text +
         fmt::format("USER: Great, this is the end of our discussion on the topic {}, let's talk about the next topic.",
                     name);
}

Prompt topics_prompt(std::span<const std::string> conversations, const std::string& first_topic) {
  std::string text = fmt::format(
      "Below is a record of our previous conversation on {} different topics. You are the ASSISTANT, and I am the "
      "USER. At the beginning of each topic, the USER will say 'I would like to discuss the topic of <TOPIC>'. "
      "Memorize each <TOPIC>. At the end of the record, I will ask you to retrieve the first topic. Now the record "
      "start. ",
      conversations.size());
  for (const std::string& one : conversations) text += one;
  text +=
      " Now the record ends. What is the first topic(s) we discussed? Only give me the topic name. Do not summarize "
      "yourself.";
  return {.question = text, .lead = "", .answer = " " + first_topic};
}

Task topics_task(uint64_t seed, const PromptEncoder& encoder) {
  Task task = seeded_task("topics", seed, [&encoder](const Cell& cell, uint64_t stream) {
    SplitMix random(stream);
    const std::vector<int64_t> order = sample(random, kTopics, kTopics);
    std::vector<std::string> conversations;
    const auto prompt = [&](int64_t n) {
      while (static_cast<int64_t>(conversations.size()) < n)
        conversations.push_back(conversation(order[conversations.size()], stream));
      return topics_prompt(std::span(conversations).first(static_cast<size_t>(n)), topic(order[0]));
    };
    const int64_t n = fill("the topics task", cell, 1, kTopics, encoder, kTopicsAnswer, prompt);
    Sample made;
    made.max_new_tokens = kTopicsAnswer;
    made.expected = {topic(order[0])};
    made.facts = {{"needle", topic(order[0])}, {"topics", n}};
    return encoder.complete(prompt(n), std::move(made));
  });
  task.score = [](const Sample& made, const std::string& response, std::span<const int32_t>) {
    return match_topic(response, made.expected.front());
  };
  return task;
}

}  // namespace longlora::eval

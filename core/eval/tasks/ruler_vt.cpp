#include <fmt/ranges.h>
#include <algorithm>

#include "core/eval/tasks/ruler.h"
#include "core/eval/tasks/score.h"

namespace longlora::eval {
namespace {

constexpr int64_t kAnswer = 30, kExampleTokens = 500, kExampleFrom = 2048;
constexpr int64_t kVariables = 5;

struct Chain {
  std::vector<std::string> variables;
  std::string value;
};

Chain draw_chain(SplitMix& random, int letters) {
  Chain chain;
  while (static_cast<int64_t>(chain.variables.size()) < kVariables) {
    std::string name = random_letters(random, letters, 'A');
    if (std::find(chain.variables.begin(), chain.variables.end(), name) == chain.variables.end())
      chain.variables.push_back(std::move(name));
  }
  chain.value = std::to_string(10000 + random.below(89999));
  return chain;
}

Prompt prompt_of(const Chain& chain, int64_t noises, uint64_t place_seed) {
  SplitMix draw(place_seed);
  std::vector<int64_t> places = sample(draw, noises, kVariables);
  std::sort(places.begin(), places.end());
  return vt_prompt(vt_context(chain.variables, chain.value, noises, places), chain.variables, chain.value);
}

}  // namespace

std::string vt_context(std::span<const std::string> variables, const std::string& value, int64_t noises,
                       std::span<const int64_t> places) {
  std::vector<std::string> chain = {fmt::format("VAR {} = {}", variables[0], value)};
  for (size_t i = 1; i < variables.size(); ++i)
    chain.push_back(fmt::format("VAR {} = VAR {} ", variables[i], variables[i - 1]));
  const std::vector<std::string> noise(static_cast<size_t>(noises), std::string(kNoise));
  return needles_in_lines(noise, chain, places);
}

Prompt vt_prompt(const std::string& context, std::span<const std::string> variables, const std::string& value) {
  return {.question =
              fmt::format("Memorize and track the chain(s) of variable assignment hidden in the following text.\n\n{}\n"
                          "Question: Find all variables that are assigned the value {} in the text above.",
                          context, value),
          .lead = fmt::format(
              " Answer: According to the chain(s) of variable assignment in the text above, {} variables are "
              "assigned the value {}, they are: ",
              variables.size(), value),
          .answer = fmt::format(" {}", fmt::join(variables, " "))};
}

Task vt_task(uint64_t seed, const PromptEncoder& encoder) {
  Task task = seeded_task("vt", seed, [&encoder](const Cell& cell, uint64_t stream) {
    SplitMix random(stream);
    const Chain chain = draw_chain(random, 5);
    const uint64_t place_seed = random();
    std::string example;
    if (cell.length >= kExampleFrom) {
      const Chain other = draw_chain(random, 3);
      const uint64_t other_seed = random();
      const int64_t noises = std::max(kVariables, fit(kVariables, kNoLimit, kExampleTokens, [&](int64_t n) {
                                        return encoder.count(prompt_of(other, n, other_seed));
                                      }));
      const Prompt shown = prompt_of(other, noises, other_seed);
      example = shown.question + shown.lead + shown.answer + "\n\n";
    }
    const auto prompt = [&](int64_t n) {
      Prompt text = prompt_of(chain, n, place_seed);
      text.question = example + text.question;
      return text;
    };
    const int64_t n = fill("vt", cell, kVariables, kNoLimit, encoder, kAnswer, prompt);
    Sample made;
    made.max_new_tokens = kAnswer;
    made.expected = chain.variables;
    made.facts = {{"needle", fmt::format("{} = {}", fmt::join(chain.variables, " = "), chain.value)}};
    return encoder.complete(prompt(n), std::move(made));
  });
  task.score = [](const Sample& made, const std::string& response, std::span<const int32_t>) {
    return match_all(response, made.expected);
  };
  return task;
}

}  // namespace longlora::eval

// `longlora recipe`: shipped recipes, the resolved recipe, validation and the JSON schema.
#include <fmt/format.h>

#include "cmd/verb.h"
#include "core/base/file.h"
#include "core/base/nearest.h"
#include "core/recipe/print.h"
#include "core/recipe/read.h"
#include "core/recipe/shipped.h"

namespace longlora::cmd {
namespace {

using Words = std::vector<std::string>;

void list() {
  size_t width = 0;
  for (const auto& one : recipe::shipped()) width = std::max(width, std::string_view(one.name).size());
  for (const auto& one : recipe::shipped()) fmt::print("{:<{}}  {}\n", one.name, width, recipe::describe(one));
}

void copy(const Words& words) {
  const recipe::Shipped* found = recipe::find_shipped(words[0]);
  if (found == nullptr) {
    const std::string near = recipe::suggest_shipped(words[0]);
    usage_error("no shipped recipe is called '{}'{} 'longlora recipe ls' lists them", words[0],
                near.empty() ? ";" : near);
  }
  const fs::path target = words.size() > 1 ? words[1] : words[0] + ".json";
  if (fs::exists(target)) usage_error("{}: exists already; give another file name", target.string());
  write_file_atomically(target, found->text);
  fmt::print("{}\n", target.string());
}

recipe::Recipe load(const Words& words, recipe::Use use) {
  return recipe::read(words[0], std::span(words).subspan(1), use);
}

struct Action {
  std::string name, arguments;
  size_t least, most;  // how many arguments
  std::function<void(const Words&, const cxxopts::ParseResult&)> run;
};

std::vector<Action> actions() {
  return {{"ls", "", 0, 0, [](const Words&, const auto&) { list(); }},
          {"cp", "NAME [FILE]", 1, 2, [](const Words& words, const auto&) { copy(words); }},
          {"show", "RECIPE [key=value ...]", 1, SIZE_MAX,
           [](const Words& words, const auto&) { fmt::print("{}", recipe::to_json(load(words, recipe::Use::show))); }},
          {"check", "RECIPE [key=value ...] [--sft]", 1, SIZE_MAX,
           [](const Words& words, const cxxopts::ParseResult& options) {
             (void)load(words, options.count("sft") > 0 ? recipe::Use::sft : recipe::Use::train);
             fmt::print("ok\n");
           }},
          {"schema", "[--markdown]", 0, 0, [](const Words&, const cxxopts::ParseResult& options) {
             fmt::print("{}", options.count("markdown") > 0 ? recipe::reference_page() : recipe::schema());
           }}};
}

Exit run(const cxxopts::ParseResult& options) {
  Words words;
  if (options.count("words") > 0) words = options["words"].as<Words>();
  if (words.empty()) usage_error("recipe: what? ls, cp, show, check or schema; see 'longlora help recipe'");
  const std::string name = words.front();
  words.erase(words.begin());
  Words names;
  for (const Action& action : actions()) {
    names.push_back(action.name);
    if (action.name != name) continue;
    if (words.size() < action.least || words.size() > action.most) {
      usage_error("usage: longlora recipe {} {}", name, action.arguments);
    }
    if (options.count("markdown") > 0 && name != "schema") usage_error("recipe {}: --markdown goes with schema", name);
    if (options.count("sft") > 0 && name != "check") usage_error("recipe {}: --sft goes with check", name);
    action.run(words, options);
    return Exit::done;
  }
  const std::string near = did_you_mean(name, names);
  usage_error("recipe: unknown action '{}'{} see 'longlora help recipe'", name, near.empty() ? ";" : near);
}

}  // namespace

Verb recipe_verb() {
  return {"recipe",
          "list, copy, show, check recipes; print their schema",
          "ls | cp NAME [FILE] | show RECIPE [key=value ...] | check RECIPE [key=value ...] [--sft] | schema",
          "  ls      the recipes that come with the program\n"
          "  cp      writes one of them to a file (NAME.json), to be edited\n"
          "  show    the recipe with overrides applied and every default filled in\n"
          "  check   says 'ok', or every mistake with its line (exit 2); --sft: as 'longlora sft' reads it\n"
          "  schema  JSON Schema of a recipe, for editors\n\n"
          "RECIPE is a JSON file (comments allowed) or the name of a recipe that comes with the program. Paths in a\n"
          "recipe are relative to the folder that the program is started in.",
          [](cxxopts::Options& options) {
            options.add_options()("markdown", "schema: as the reference page docs/recipes.md")(
                "sft", "check: as a recipe for sft")("words", "", cxxopts::value<Words>());
            options.parse_positional({"words"});
          },
          run};
}

}  // namespace longlora::cmd

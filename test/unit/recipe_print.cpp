// What is printed of a recipe: the resolved one, the schema, the reference page, and the shipped recipes.
#include "core/recipe/print.h"

#include <catch2/catch.hpp>

#include "core/base/file.h"
#include "core/recipe/fields.h"
#include "core/recipe/read.h"
#include "core/recipe/shipped.h"

using namespace longlora;
using nlohmann::json;
using recipe::Recipe;
using recipe::Use;

TEST_CASE("a printed recipe reads back to the same values", "[recipe]") {
  Recipe r;
  r.model.path = "a \"quoted\" näme";
  r.context.rope.type = "yarn";
  r.context.rope.factor = 1.0 / 3 + 1;
  r.context.rope.theta = 45200000000.0;
  r.optimizer.lr = 0.1 + 0.2;
  r.optimizer.betas = {0.5, 1e-300};
  r.tune.also = {};
  r.data.train = {"a", "b"};
  r.seed = INT64_MAX;
  const std::string text = recipe::to_json(r);
  const Recipe back = recipe::read_text(text, "printed", {}, Use::show);
  CHECK(recipe::to_json(back) == text);
  CHECK(back.model.path == r.model.path);
  CHECK(back.context.rope.factor == r.context.rope.factor);
  CHECK(back.context.rope.theta == r.context.rope.theta);
  CHECK(back.optimizer.lr == r.optimizer.lr);
  CHECK(back.optimizer.betas == r.optimizer.betas);
  CHECK(back.seed == r.seed);
}

TEST_CASE("a printed recipe has every key in the order of the structs", "[recipe]") {
  const auto printed = nlohmann::ordered_json::parse(recipe::to_json(Recipe{}));
  std::vector<std::string> sections;
  for (const auto& [key, value] : printed.items()) sections.push_back(key);
  CHECK(sections == std::vector<std::string>{"model", "context", "attention", "tune", "data", "sft", "batch",
                                             "optimizer", "schedule", "parallel", "memory", "eval", "checkpoint", "log",
                                             "seed"});
  CHECK(printed["context"]["rope"]["factor"] == "auto");
  size_t at = 0;  // each field's key follows that of the field before it
  const std::string text = recipe::to_json(Recipe{});
  for (const recipe::Field& field : recipe::fields()) {
    INFO(field.path);
    at = text.find("\"" + field.path.substr(field.path.rfind('.') + 1) + "\": ", at);
    REQUIRE(at != text.npos);
    ++at;
  }
}

TEST_CASE("every field has help, a place of its own and a default within its limits", "[recipe]") {
  std::vector<std::string> paths;
  for (const recipe::Field& field : recipe::fields()) {
    INFO(field.path);
    CHECK_FALSE(field.help.empty());
    CHECK(field.help.find_first_of("\n|") == std::string::npos);  // one line, and a cell of a table
    const size_t dot = field.path.rfind('.');
    CHECK(recipe::is_section(dot == std::string::npos ? "" : field.path.substr(0, dot)));
    Recipe r;
    CHECK_FALSE(recipe::assign(field, r, recipe::value_of(field, Recipe{})));
    CHECK(std::find(paths.begin(), paths.end(), field.path) == paths.end());
    paths.push_back(field.path);
  }
}

namespace {

// A small validator for the part of JSON Schema that the schema uses.
bool valid(const json& schema, const json& value) {
  if (schema.contains("anyOf")) {
    return std::any_of(schema["anyOf"].begin(), schema["anyOf"].end(), [&](const json& s) { return valid(s, value); });
  }
  if (schema.contains("const") && schema["const"] != value) return false;
  if (schema.contains("enum") &&
      std::find(schema["enum"].begin(), schema["enum"].end(), value) == schema["enum"].end()) {
    return false;
  }
  const std::string type = schema.value("type", "");
  if (type == "object") {
    if (!value.is_object()) return false;
    for (const auto& [key, child] : value.items()) {
      if (!schema["properties"].contains(key) || !valid(schema["properties"][key], child)) return false;
    }
    return true;
  }
  if (type == "array") {
    if (!value.is_array() || value.size() < schema.value("minItems", size_t{0})) return false;
    return std::all_of(value.begin(), value.end(), [&](const json& v) { return valid(schema["items"], v); });
  }
  if (type == "string") return value.is_string();
  if (type == "boolean") return value.is_boolean();
  if (type == "integer" && !value.is_number_integer()) return false;
  if (type == "number" && !value.is_number()) return false;
  if (schema.contains("minimum") && value < schema["minimum"]) return false;
  if (schema.contains("exclusiveMinimum") && value <= schema["exclusiveMinimum"]) return false;
  if (schema.contains("maximum") && value > schema["maximum"]) return false;
  if (schema.contains("exclusiveMaximum") && value >= schema["exclusiveMaximum"]) return false;
  return true;
}

}  // namespace

TEST_CASE("the schema accepts the defaults and the shipped recipes, and refuses what the reader refuses", "[recipe]") {
  const json schema = json::parse(recipe::schema());
  CHECK(valid(schema, json::parse(recipe::to_json(Recipe{}))));
  for (const recipe::Shipped& one : recipe::shipped()) {
    INFO(one.name);
    CHECK(valid(schema, json::parse(one.text, nullptr, true, true)));
  }
  for (const char* wrong : {R"({"modle": {}})", R"({"tune": {"rank": 0}})", R"({"tune": {"targets": ["x"]}})",
                            R"({"context": {"rope": {"factor": "aut"}}})", R"({"optimizer": {"betas": [0.9]}})",
                            R"({"attention": {"group_ratio": 0}})", R"({"seed": 1.5})"}) {
    INFO(wrong);
    CHECK_FALSE(valid(schema, json::parse(wrong)));
    CHECK_THROWS(recipe::read_text(wrong, "r", {}, Use::show));
  }
}

TEST_CASE("the checked-in reference page is fresh", "[recipe]") {
  INFO("write it again: longlora recipe schema --markdown > docs/recipes.md");
  CHECK(read_file(LONGLORA_SOURCE_DIR "/docs/recipes.md") == recipe::reference_page());
}

TEST_CASE("every shipped recipe reads, says what it is and how to run it, and is the file in recipes/", "[recipe]") {
  CHECK(recipe::shipped().size() >= 10);
  for (const recipe::Shipped& one : recipe::shipped()) {
    INFO(one.name);
    CHECK(read_file(fs::path(LONGLORA_SOURCE_DIR "/recipes") / (std::string(one.name) + ".json")) == one.text);
    CHECK_FALSE(recipe::describe(one).empty());
    CHECK_THAT(one.text, Catch::Contains(std::string("\n// Run: longlora train ") + one.name) ||
                             Catch::Contains(std::string("\n// Run: longlora sft ") + one.name));
    CHECK_THAT(one.text, Catch::Contains("\n// From: "));
    CHECK_NOTHROW(recipe::read(one.name, {}, Use::show));
  }
}

#include "core/recipe/print.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/recipe/fields.h"
#include "core/recipe/shipped.h"

namespace longlora::recipe {
namespace {

using json = nlohmann::ordered_json;

// Objects over several lines, everything else on one.
void pretty(const json& value, const std::string& indent, std::string& out) {
  if (!value.is_object()) {
    out += value.dump();
    return;
  }
  out += "{";
  const char* separator = "\n";
  for (const auto& [key, child] : value.items()) {
    out += separator + indent + "  " + json(key).dump() + ": ";
    pretty(child, indent + "  ", out);
    separator = ",\n";
  }
  out += "\n" + indent + "}";
}

std::string pretty(const json& value) {
  std::string out;
  pretty(value, "", out);
  return out + "\n";
}

json::json_pointer pointer(std::string path) {
  std::replace(path.begin(), path.end(), '.', '/');
  return json::json_pointer("/" + path);
}

json scalar_schema(const std::string& type, const Limits& limits) {
  json out;
  out["type"] = type;
  if (!limits.choices.empty()) out["enum"] = limits.choices;
  if (!std::isinf(limits.low)) out[limits.low_open ? "exclusiveMinimum" : "minimum"] = limits.low;
  if (!std::isinf(limits.high)) out[limits.high_open ? "exclusiveMaximum" : "maximum"] = limits.high;
  return out;
}

json list_schema(const std::string& type, const Limits& limits) {
  json out;
  out["type"] = "array";
  out["items"] = scalar_schema(type, limits);
  if (!limits.choices.empty()) out["uniqueItems"] = true;
  if (limits.entries > 0) out["minItems"] = out["maxItems"] = limits.entries;
  return out;
}

json field_schema(const Field& field) {
  const std::string type = type_name(field);
  const Limits& limits = field.limits;
  if (type == "text") return scalar_schema("string", limits);
  if (type == "true or false") return scalar_schema("boolean", limits);
  if (type == "integer" || type == "number") return scalar_schema(type, limits);
  if (type == "list of numbers") return list_schema("number", limits);
  json out;
  out["anyOf"] = type == "list of text" ? json::array({list_schema("string", limits), scalar_schema("string", limits)})
                                        : json::array({scalar_schema("number", limits), json{{"const", "auto"}}});
  return out;
}

std::string_view parent(std::string_view path) {
  const size_t dot = path.rfind('.');
  return dot == path.npos ? "" : path.substr(0, dot);
}

}  // namespace

std::string to_json(const Recipe& recipe) {
  json out;
  for (const Field& field : fields()) out[pointer(field.path)] = value_of(field, recipe);
  return pretty(out);
}

std::string schema() {
  json out;
  out["$schema"] = "https://json-schema.org/draft/2020-12/schema";
  out["title"] = "longlora recipe";
  out["type"] = "object";
  out["additionalProperties"] = false;
  const auto place = [&](const std::string& path) -> json& {
    std::string inside = "properties/" + path;
    for (size_t at = 0; (at = inside.find('.', at)) != inside.npos;) inside.replace(at, 1, "/properties/");
    return out[json::json_pointer("/" + inside)];
  };
  for (const Section& section : sections()) {
    if (section.path.empty()) continue;
    json& made = place(section.path);
    made["type"] = "object";
    made["description"] = section.help;
    made["additionalProperties"] = false;
  }
  for (const Field& field : fields()) {
    json made = field_schema(field);
    made["description"] = field.help;
    made["default"] = value_of(field, Recipe{});
    place(field.path) = std::move(made);
  }
  return pretty(out);
}

std::string reference_page() {
  std::string out =
      "# Recipes\n\n"
      "<!-- Written by `longlora recipe schema --markdown`; a test compares. -->\n\n"
      "A recipe is a JSON file with comments that says everything about a run. "
      "Keys that it leaves out have the defaults\n"
      "below; `longlora recipe show RECIPE` prints it with all of them, and every run saves that beside its results.\n"
      "`key=value` after a recipe overrides single keys by their dotted path, from left to right:\n\n"
      "    longlora train my.json optimizer.lr=1e-4 'data.train=[\"a.txt\", \"b.txt\"]' checkpoint.dir=runs/second\n\n"
      "Paths are relative to the folder that the program is started in, not to the recipe. "
      "A list of text may be written\n"
      "as one text. Unknown and duplicate keys, wrong types and values, and keys that contradict one another or would\n"
      "have no effect are mistakes; `longlora recipe check RECIPE` reports all of them at once.\n";
  for (const Section& section : sections()) {
    std::string rows;
    for (const Field& field : fields()) {
      if (parent(field.path) != section.path) continue;
      const std::string limits = limits_text(field.limits);
      rows += fmt::format("| `{}` | {}{}{} | `{}` | {} |\n", field.path, type_name(field), limits.empty() ? "" : ", ",
                          limits, value_of(field, Recipe{}).dump(), field.help);
    }
    const std::string title = section.path.empty() ? "Top level" : "`" + section.path + "`";
    out += fmt::format("\n## {}\n\n{}.\n\n| key | value | default | meaning |\n|---|---|---|---|\n{}", title,
                       section.help, rows);
  }
  out +=
      "\n## Recipes that come with the program\n\n"
      "`longlora recipe cp NAME` writes one out to be edited; `longlora train NAME key=value …` runs it as it is, "
      "where\n"
      "this build has all that it asks for.\n\n"
      "| name | what it is |\n"
      "|---|---|\n";
  for (const Shipped& one : shipped()) out += fmt::format("| `{}` | {} |\n", one.name, describe(one));
  return out;
}

}  // namespace longlora::recipe

// What one field does with a value: name its type, check and store it, give it back.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/base/nearest.h"
#include "core/recipe/fields.h"

namespace longlora::recipe {
namespace {

using json = nlohmann::json;
constexpr double kExact = 9007199254740992.0;  // 2^53: whole numbers up to here are exact as double

template <class... Cases>
struct Match : Cases... {
  using Cases::operator()...;
};

std::string got(const json& value) {
  std::string text = value.dump(-1, ' ', false, json::error_handler_t::replace);
  if (text.size() > 60) text = text.substr(0, 57) + "...";
  return text;
}

std::string wrong_type(const char* expected, const json& value) {
  return fmt::format("expected {}, got {}", expected, value.is_object() ? "a section" : got(value));
}

// Each returns what is wrong, or "" after storing.

std::string store(std::string& out, const json& value, const Limits& limits) {
  if (!value.is_string()) return wrong_type("text", value);
  const auto& text = value.get_ref<const std::string&>();
  const auto& choices = limits.choices;
  if (!choices.empty() && std::find(choices.begin(), choices.end(), text) == choices.end()) {
    return fmt::format("'{}' is not {}{}", text, limits_text(limits), did_you_mean(text, choices));
  }
  out = text;
  return "";
}

std::string store(bool& out, const json& value, const Limits&) {
  if (!value.is_boolean()) return wrong_type("true or false", value);
  out = value.get<bool>();
  return "";
}

std::string outside(double x, const Limits& limits) {
  const bool low = limits.low_open ? x > limits.low : x >= limits.low;
  const bool high = limits.high_open ? x < limits.high : x <= limits.high;
  return low && high ? "" : fmt::format("must be {}", limits_text(limits));
}

std::string store(double& out, const json& value, const Limits& limits) {
  if (!value.is_number()) return wrong_type("a number", value);
  const std::string wrong = outside(value.get<double>(), limits);
  if (!wrong.empty()) return fmt::format("{}, got {}", wrong, got(value));
  out = value.get<double>();
  return "";
}

std::string store(int64_t& out, const json& value, const Limits& limits) {
  if (!value.is_number()) return wrong_type("an integer", value);
  double x = 0;
  if (std::string wrong = store(x, value, limits); !wrong.empty()) return wrong;
  const bool fits = value.is_number_float()
                        ? x == std::floor(x) && std::abs(x) <= kExact
                        : !value.is_number_unsigned() || value.get<uint64_t>() <= uint64_t{INT64_MAX};
  if (!fits) return wrong_type("an integer", value);
  out = value.get<int64_t>();
  return "";
}

std::string store(std::optional<double>& out, const json& value, const Limits& limits) {
  if (value == "auto") {
    out.reset();
    return "";
  }
  double x = 0;
  if (!value.is_number()) return wrong_type("a number or \"auto\"", value);
  if (std::string wrong = store(x, value, limits); !wrong.empty()) return wrong;
  out = x;
  return "";
}

template <class T>
std::optional<Wrong> store_list(std::vector<T>& out, const json& value, const Limits& limits, const char* expected) {
  if (!value.is_array()) return Wrong{wrong_type(expected, value), {}};
  if (limits.entries > 0 && value.size() != limits.entries) {
    return Wrong{fmt::format("expected {} entries, got {}", limits.entries, value.size()), {}};
  }
  std::vector<T> list(value.size());
  for (size_t i = 0; i < value.size(); ++i) {
    if (std::string wrong = store(list[i], value[i], limits); !wrong.empty()) return Wrong{std::move(wrong), i};
    const bool again = std::find(list.begin(), list.begin() + static_cast<ptrdiff_t>(i), list[i]) !=
                       list.begin() + static_cast<ptrdiff_t>(i);
    if (again && !limits.choices.empty()) return Wrong{fmt::format("{} stands there twice", got(value[i])), i};
  }
  out = std::move(list);
  return {};
}

json number(double x) {
  return x == std::floor(x) && std::abs(x) <= kExact ? json(static_cast<int64_t>(x)) : json(x);
}

}  // namespace

std::optional<Wrong> assign(const Field& field, Recipe& recipe, const json& value) {
  const Limits& limits = field.limits;
  return std::visit(
      Match{[&](std::vector<std::string>* list) {
              return store_list(*list, value.is_string() ? json::array({value}) : value, limits, "a list of text");
            },
            [&](std::vector<double>* list) { return store_list(*list, value, limits, "a list of numbers"); },
            [&](auto* one) -> std::optional<Wrong> {
              std::string wrong = store(*one, value, limits);
              if (wrong.empty()) return {};
              return Wrong{std::move(wrong), {}};
            }},
      field.slot(recipe));
}

json value_of(const Field& field, const Recipe& recipe) {
  Recipe copy = recipe;
  return std::visit(Match{[](double* x) { return number(*x); },
                          [](std::optional<double>* x) { return *x ? number(**x) : json("auto"); },
                          [](std::vector<double>* list) {
                            json out = json::array();
                            for (const double x : *list) out.push_back(number(x));
                            return out;
                          },
                          [](auto* one) { return json(*one); }},
                    field.slot(copy));
}

std::string type_name(const Field& field) {
  Recipe any;
  return std::visit(Match{[](std::string*) { return "text"; }, [](bool*) { return "true or false"; },
                          [](int64_t*) { return "integer"; }, [](double*) { return "number"; },
                          [](std::optional<double>*) { return "number or \"auto\""; },
                          [](std::vector<std::string>*) { return "list of text"; },
                          [](std::vector<double>*) { return "list of numbers"; }},
                    field.slot(any));
}

std::string limits_text(const Limits& limits) {
  if (!limits.choices.empty()) {
    std::string text = limits.choices.size() == 1 ? "" : "one of ";
    for (size_t i = 0; i < limits.choices.size(); ++i) text += (i == 0 ? "" : ", ") + limits.choices[i];
    return text;
  }
  if (std::isinf(limits.low)) return "";
  if (std::isinf(limits.high)) return fmt::format("{} {:g}", limits.low_open ? "above" : "at least", limits.low);
  return fmt::format("in {}{:g}, {:g}{}", limits.low_open ? '(' : '[', limits.low, limits.high,
                     limits.high_open ? ')' : ']');
}

const Field* find_field(std::string_view path) {
  for (const Field& field : fields()) {
    if (field.path == path) return &field;
  }
  return nullptr;
}

bool is_section(std::string_view path) {
  return std::any_of(sections().begin(), sections().end(), [&](const Section& s) { return s.path == path; });
}

std::string suggest_key(std::string_view path) {
  const auto split = [](std::string_view whole) {
    const size_t dot = whole.rfind('.');
    return dot == whole.npos ? std::pair(std::string_view(), whole)
                             : std::pair(whole.substr(0, dot), whole.substr(dot + 1));
  };
  const auto [parent, name] = split(path);
  std::vector<std::string> all, siblings, namesakes;
  for (const Field& field : fields()) all.push_back(field.path);
  for (const Section& section : sections()) all.push_back(section.path);
  for (const std::string& known : all) {
    if (split(known).first == parent) siblings.emplace_back(split(known).second);
    if (split(known).second == name) namesakes.push_back(known);
  }
  if (const std::string near = nearest_name(name, siblings); !near.empty()) {
    return fmt::format(", did you mean '{}{}{}'?", parent, parent.empty() ? "" : ".", near);
  }
  if (!namesakes.empty()) return fmt::format(", did you mean '{}'?", namesakes.front());
  return is_section(parent) ? "" : did_you_mean(path, all);
}

}  // namespace longlora::recipe

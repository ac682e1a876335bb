#include "core/recipe/read.h"

#include <map>

#include "core/base/error.h"
#include "core/base/file.h"
#include "core/base/nearest.h"
#include "core/recipe/fields.h"
#include "core/recipe/located_json.h"
#include "core/recipe/rules.h"
#include "core/recipe/shipped.h"

namespace longlora::recipe {
namespace {

using json = nlohmann::json;

std::string join(const std::string& prefix, const std::string& key) {
  return prefix.empty() ? key : prefix + "." + key;
}

// Fills a recipe value by value, and collects what is wrong and where each value came from.
class Reader {
 public:
  explicit Reader(std::string name) : name_(std::move(name)) {}

  void file(std::string_view text) {
    try {
      const Node root = parse_located(text);
      if (root.value.is_object()) {
        section(root, "");
      } else {
        mistake(line(root), "", "expected an object, { ... }");
      }
    } catch (const SyntaxError& error) {
      mistake(fmt::format("{}:{}", name_, error.line), "", error.what());
    }
  }

  void override_with(const std::string& text) {
    const std::string where = fmt::format("override '{}'", text.size() > 80 ? text.substr(0, 77) + "..." : text);
    const size_t equals = text.find('=');
    if (equals == text.npos) return mistake(where, "", "expected key=value");
    const std::string path = text.substr(0, equals), raw = text.substr(equals + 1);
    const Field* field = known(path, where);
    if (field == nullptr) return;
    const json parsed = json::parse(raw, nullptr, false);
    // Text needs no quotes, also where it looks like a number: model.path=7
    const bool keep = !parsed.is_discarded() && (type_name(*field) != "text" || parsed.is_string());
    set(*field, keep ? parsed : json(raw), [&](std::optional<size_t>) { return where; });
  }

  // Rules that look at several keys; only for a recipe whose values are right one by one.
  void rules(Use use) {
    if (!mistakes_.empty()) return;
    if (use == Use::sft) {
      if (const auto given = where_.find("data.packing"); given != where_.end() && recipe_.data.packing == "stream")
        mistake(given->second, "data.packing", "must be documents in sft, where every sample is whole");
      recipe_.data.packing = "documents";
    }
    for (const BrokenRule& broken : broken_rules(recipe_, use)) {
      const auto found = where_.find(broken.path);
      mistake(found == where_.end() ? name_ : found->second, broken.path, broken.what);
    }
  }

  [[nodiscard]] Recipe finish() {
    if (mistakes_.empty()) return std::move(recipe_);
    std::string all = mistakes_.size() == 1 ? "" : fmt::format("{} mistakes in the recipe\n", mistakes_.size());
    for (const std::string& one : mistakes_) all += (&one == &mistakes_.front() ? "" : "\n") + one;
    throw Error(Exit::usage, all);
  }

 private:
  void section(const Node& node, const std::string& path) {
    std::map<std::string, size_t> seen;
    for (const Node& child : node.children) {
      const std::string child_path = join(path, child.key);
      const auto [first, fresh] = seen.emplace(child.key, child.line);
      if (!fresh) {
        mistake(line(child), child_path, fmt::format("duplicate key, it stands in line {} already", first->second));
      } else if (child.key.find('.') != child.key.npos) {
        mistake(line(child), child_path, "unknown key; dotted paths are for overrides, here sections are nested");
      } else if (is_section(child_path) && child.value.is_object()) {
        section(child, child_path);
      } else if (const Field* field = known(child_path, line(child))) {
        set(*field, child.list(), [&](std::optional<size_t> entry) {
          return line(entry && *entry < child.children.size() ? child.children[*entry] : child);
        });
      }
    }
  }

  const Field* known(const std::string& path, const std::string& where) {
    const Field* field = find_field(path);
    if (field != nullptr) return field;
    if (!path.empty() && is_section(path)) {
      mistake(where, path, "is a section, not a value");
    } else {
      mistake(where, path, "unknown key" + suggest_key(path));
    }
    return nullptr;
  }

  template <class Where>
  void set(const Field& field, const json& value, Where where) {
    const auto wrong = assign(field, recipe_, value);
    if (wrong) {
      const std::string entry = wrong->entry ? fmt::format("[{}]", *wrong->entry) : "";
      mistake(where(wrong->entry), field.path + entry, wrong->what);
    }
    where_[field.path] = where({});
  }

  void mistake(const std::string& where, const std::string& path, const std::string& what) {
    mistakes_.push_back(fmt::format("{}: {}{}{}", where, path, path.empty() ? "" : ": ", what));
  }
  [[nodiscard]] std::string line(const Node& node) const { return fmt::format("{}:{}", name_, node.line); }

  std::string name_;
  Recipe recipe_;
  std::vector<std::string> mistakes_;
  std::map<std::string, std::string> where_;  // by path: "file:line" or "override '...'"
};

}  // namespace

Recipe read_text(std::string_view text, const std::string& name, std::span<const std::string> overrides, Use use) {
  Reader reader(name);
  reader.file(text);
  for (const std::string& one : overrides) reader.override_with(one);
  reader.rules(use);
  return reader.finish();
}

Recipe read(const std::string& file_or_name, std::span<const std::string> overrides, Use use) {
  const Shipped* found = find_shipped(file_or_name);
  if (found != nullptr && (!fs::exists(file_or_name) || fs::is_directory(file_or_name))) {
    return read_text(found->text, found->name, overrides, use);
  }
  if (!fs::exists(file_or_name)) {
    const std::string near = suggest_shipped(file_or_name);
    input_error("{}: no such file, nor a shipped recipe of that name{} 'longlora recipe ls' lists them", file_or_name,
                near.empty() ? ";" : near);
  }
  return read_text(read_file(file_or_name), file_or_name, overrides, use);
}

}  // namespace longlora::recipe

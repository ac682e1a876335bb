#include "core/text/folder_settings.h"

#include <algorithm>

#include "core/base/file.h"
#include "core/text/json_fields.h"

namespace longlora::text {

namespace {

Json read_if_there(const fs::path& path) {
  if (!fs::exists(path)) return Json::object();
  Json json = parse_json(read_file(path), path.string());
  if (!json.is_object()) input_error("{}: an object is expected", path.string());
  return json;
}

// A token is a string or an object {"content": .., "lstrip": .., ..}.
AddedToken token_of(const Json& json, bool special, const std::string& where) {
  AddedToken token;
  token.special = special;
  if (json.is_string()) {
    token.content = json.get<std::string>();
    return token;
  }
  if (!json.is_object()) input_error("{}: a token is expected", where);
  token.content = required<std::string>(json, "content", where);
  token.single_word = optional_or<bool>(json, "single_word", where, false);
  token.lstrip = optional_or<bool>(json, "lstrip", where, false);
  token.rstrip = optional_or<bool>(json, "rstrip", where, false);
  token.normalized = optional_or<bool>(json, "normalized", where, !special);
  token.special = optional_or<bool>(json, "special", where, special);
  return token;
}

std::optional<int32_t> first_id(const Json& json, const char* key, const std::string& where) {
  const auto found = json.find(key);
  if (found == json.end() || found->is_null()) return std::nullopt;
  if (!found->is_array()) return required<int32_t>(json, key, where);
  if (found->empty() || !found->front().is_number_integer()) input_error("{}: '{}' holds no ids", where, key);
  return found->front().get<int32_t>();
}

class Reader {
 public:
  explicit Reader(const fs::path& folder)
      : folder_(folder),
        config_(read_if_there(folder / "tokenizer_config.json")),
        map_(read_if_there(folder / "special_tokens_map.json")) {}

  FolderSettings run() {
    added();
    named();
    const std::string where = (folder_ / "tokenizer_config.json").string();
    if (config_.contains("add_bos_token") && !config_["add_bos_token"].is_null())
      out_.add_bos = required<bool>(config_, "add_bos_token", where);
    out_.legacy = optional_or<bool>(config_, "legacy", where, true);
    for (const char* name : {"generation_config.json", "config.json"}) {
      const Json json = read_if_there(folder_ / name);
      if (!out_.bos_id) out_.bos_id = first_id(json, "bos_token_id", (folder_ / name).string());
      if (!out_.eos_id) out_.eos_id = first_id(json, "eos_token_id", (folder_ / name).string());
    }
    return std::move(out_);
  }

 private:
  void added() {
    const std::string config_where = (folder_ / "tokenizer_config.json").string() + ": added_tokens_decoder";
    if (const auto decoder = config_.find("added_tokens_decoder"); decoder != config_.end() && decoder->is_object())
      for (const auto& item : decoder->items()) {
        AddedToken token = token_of(item.value(), false, config_where);
        const std::string& key = item.key();
        if (key.empty() || key.size() > 9 || key.find_first_not_of("0123456789") != std::string::npos)
          input_error("{}: '{}' is no id", config_where, key);
        token.id = std::stoi(key);
        add(std::move(token), config_where);
      }
    const fs::path file = folder_ / "added_tokens.json";
    const Json plain = read_if_there(file);
    for (const auto& item : plain.items()) {
      if (!item.value().is_number_integer()) input_error("{}: '{}' has no id", file.string(), item.key());
      AddedToken token;
      token.content = item.key();
      token.id = item.value().get<int32_t>();
      token.normalized = true;
      add(std::move(token), file.string());
    }
    std::sort(out_.added.begin(), out_.added.end(), [](const auto& a, const auto& b) { return a.id < b.id; });
  }

  void add(AddedToken token, const std::string& where) {
    for (const AddedToken& other : out_.added) {
      if (other.content == token.content && other.id == token.id) return;
      if (other.content == token.content)
        input_error("{}: the token '{}' has the id {}, elsewhere {}", where, token.content, token.id, other.id);
      if (other.id == token.id)
        input_error("{}: the id {} belongs to '{}', elsewhere to '{}'", where, token.id, token.content, other.content);
    }
    out_.added.push_back(std::move(token));
  }

  // tokenizer_config.json says it; special_tokens_map.json where that is silent or of the old kind, which has
  // no list of added tokens.
  [[nodiscard]] const Json* special(const char* key, std::string* where) const {
    const bool old = !config_.contains("added_tokens_decoder");
    const std::pair<const Json*, const char*> files[] = {
        {old ? &map_ : &config_, old ? "special_tokens_map.json" : "tokenizer_config.json"},
        {old ? &config_ : &map_, old ? "tokenizer_config.json" : "special_tokens_map.json"}};
    for (const auto& [json, name] : files)
      if (const auto found = json->find(key); found != json->end() && !found->is_null()) {
        *where = (folder_ / name).string() + ": " + key;
        return &*found;
      }
    return nullptr;
  }

  void name(AddedToken token) {
    if (token.content.empty()) return;
    // What was added under this name is a special token from now on, also when its list does not say so.
    for (AddedToken& other : out_.added)
      if (other.content == token.content) {
        other.special = true;
        return;
      }
    for (const AddedToken& other : out_.named)
      if (other.content == token.content) return;
    out_.named.push_back(std::move(token));
  }

  void named() {
    std::string where;
    for (const char* key :
         {"bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"}) {
      const Json* json = special(key, &where);
      if (!json) continue;
      AddedToken token = token_of(*json, true, where);
      if (key == std::string_view("bos_token") && !token.content.empty()) out_.bos = token.content;
      if (key == std::string_view("eos_token") && !token.content.empty()) out_.eos = token.content;
      name(std::move(token));
    }
    for (const char* key : {"additional_special_tokens", "extra_special_tokens"})
      if (const Json* json = special(key, &where))
        for (const auto& item : json->items()) name(token_of(item.value(), true, where));
  }

  fs::path folder_;
  Json config_, map_;
  FolderSettings out_;
};

}  // namespace

FolderSettings read_folder_settings(const fs::path& folder) {
  return Reader(folder).run();
}

}  // namespace longlora::text

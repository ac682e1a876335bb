#include "core/adapt/companions.h"

#include <algorithm>
#include <array>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/file.h"
#include "core/io/json_file.h"

namespace longlora::adapt {
namespace {

constexpr std::array<std::string_view, 12> kBeginnings = {"tokenizer",
                                                          "special_tokens_map.json",
                                                          "added_tokens.json",
                                                          "vocab.json",
                                                          "merges.txt",
                                                          "chat_template",
                                                          "generation_config.json",
                                                          "additional_chat_templates",
                                                          "LICENSE",
                                                          "LICENCE",
                                                          "NOTICE",
                                                          "USE_POLICY"};

bool is_companion(const std::string& name) {
  return std::any_of(kBeginnings.begin(), kBeginnings.end(), [&](std::string_view b) { return name.starts_with(b); });
}

}  // namespace

void copy_companions(const std::filesystem::path& from, const std::filesystem::path& to, int64_t context_length) {
  try {
    for (const auto& entry : fs::directory_iterator(from)) {
      const std::string name = entry.path().filename().string();
      if (is_companion(name))
        fs::copy(entry.path(), to / name, fs::copy_options::recursive | fs::copy_options::overwrite_existing);
    }
  } catch (const fs::filesystem_error& error) {
    fail("{}: cannot copy: {}", error.path1().string(), error.code().message());
  }
  const fs::path settings = to / "tokenizer_config.json";
  if (!fs::exists(settings)) return;
  try {
    nlohmann::ordered_json root = io::read_json(settings);
    if (!root.is_object()) input_error("{}: is no JSON object", (from / "tokenizer_config.json").string());
    const auto limit = root.find("model_max_length");
    if (limit == root.end() || !limit->is_number_integer() || limit->get<int64_t>() >= context_length) return;
    *limit = context_length;
    write_file_atomically(settings, root.dump(2) + "\n");
  } catch (const nlohmann::ordered_json::exception& error) {
    input_error("{}: {}", (from / "tokenizer_config.json").string(), error.what());
  }
}

}  // namespace longlora::adapt

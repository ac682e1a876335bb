// The tokenizers of test/golden/tokenizers (made by scripts/goldens/tokenizer_fixtures.py) and their texts.
#pragma once
#include <catch2/catch.hpp>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/file.h"
#include "core/text/stream_decoder.h"
#include "core/text/unicode.h"

namespace tokenizer_fixtures {

using longlora::text::Tokenizer;

inline std::filesystem::path folder(const std::string& name) {
  return std::filesystem::path(LONGLORA_SOURCE_DIR) / "test/golden/tokenizers" / name;
}

inline std::shared_ptr<const Tokenizer> load(const std::string& name) {
  return Tokenizer::load(folder(name));
}

inline std::string bytes_of_hex(const std::string& hex) {
  std::string bytes;
  for (size_t i = 0; i + 1 < hex.size(); i += 2) bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  return bytes;
}

// The hard corpus, some of it not UTF-8.
inline std::vector<std::string> corpus() {
  std::vector<std::string> texts;
  for (const auto& hex : nlohmann::json::parse(longlora::read_file(folder("corpus.json"))))
    texts.push_back(bytes_of_hex(hex.get<std::string>()));
  return texts;
}

inline std::vector<std::string> names() {
  std::vector<std::string> found;
  for (const auto& entry : std::filesystem::directory_iterator(folder("")))
    if (entry.is_directory()) found.push_back(entry.path().filename().string());
  std::sort(found.begin(), found.end());
  return found;
}

// The text that ids give one by one, every part of it valid by itself.
inline std::string streamed(const std::shared_ptr<const Tokenizer>& tokenizer, const std::vector<int32_t>& ids,
                            bool skip) {
  longlora::text::StreamDecoder decoder(tokenizer, skip);
  std::string text;
  for (const int32_t id : ids) {
    const std::string part = decoder.push(id);
    CHECK(longlora::text::is_valid_utf8(part));
    text += part;
  }
  return text + decoder.finish();
}

// A copy of a fixture in a folder of its own, to be changed; removed at the end.
class Copy {
 public:
  explicit Copy(const std::string& name) {
    std::string made = (std::filesystem::temp_directory_path() / "longlora-tokenizer-XXXXXX").string();
    if (!mkdtemp(made.data())) throw std::runtime_error("no temporary folder");
    path = made;
    if (!name.empty()) std::filesystem::copy(folder(name), path);
  }
  ~Copy() { std::filesystem::remove_all(path); }
  Copy(const Copy&) = delete;
  Copy& operator=(const Copy&) = delete;

  void write(const std::string& file, const std::string& bytes) const {
    longlora::write_file_atomically(path / file, bytes);
  }
  [[nodiscard]] nlohmann::json json(const std::string& file) const {
    return nlohmann::json::parse(longlora::read_file(path / file));
  }
  // The message of the error that loading ends in; "" when it loads. Exit codes other than 3 are rethrown.
  [[nodiscard]] std::string load_error() const {
    try {
      (void)Tokenizer::load(path);
      return "";
    } catch (const longlora::Error& e) {
      if (e.code() != longlora::Exit::input) throw;
      return e.what();
    }
  }

  std::filesystem::path path;
};

}  // namespace tokenizer_fixtures

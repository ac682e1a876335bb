// What the tests of core/data share: a folder with their files, a tokenizer of bytes, zstd files, expected
// errors.
#pragma once
#include <zstd.h>

#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <functional>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "core/base/error.h"
#include "core/base/file.h"
#include "core/text/tokenizer.h"
#include "test/unit/temporary_folder.h"

namespace longlora::test {

class Folder {
 public:
  [[nodiscard]] fs::path operator/(const std::string& name) const { return folder_.path() / name; }
  [[nodiscard]] std::string str(const std::string& name) const { return (folder_.path() / name).string(); }
  fs::path write(const std::string& name, const std::string& bytes) const {
    const fs::path path = folder_.path() / name;
    fs::create_directories(path.parent_path());
    write_file(path, bytes);
    return path;
  }
  [[nodiscard]] std::vector<std::string> names() const {
    std::vector<std::string> all;
    for (const auto& entry : fs::directory_iterator(folder_.path())) all.push_back(entry.path().filename().string());
    std::sort(all.begin(), all.end());
    return all;
  }

 private:
  TemporaryFolder folder_;
};

inline std::string zstd(std::string_view bytes) {
  std::string out(ZSTD_compressBound(bytes.size()), '\0');
  out.resize(ZSTD_compress(out.data(), out.size(), bytes.data(), bytes.size(), 3));
  return out;
}

template <class Id>
std::string raw(const std::vector<Id>& ids) {
  return {reinterpret_cast<const char*>(ids.data()), ids.size() * sizeof(Id)};
}

// The error that `body` throws: "exit code|message".
inline std::string error_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    return fmt::format("{}|{}", static_cast<int>(error.code()), error.what());
  }
  return "no error";
}

// A byte is its own id; BOS 256, EOS 257. Counts what it encodes and dawdles now and then if asked to.
class ByteTokenizer : public text::Tokenizer {
 public:
  explicit ByteTokenizer(bool adds_bos = false, std::string print = "bytes", int64_t vocab = 258) : vocab_(vocab) {
    bos_ = 256;
    eos_ = 257;
    adds_bos_ = adds_bos;
    fingerprint_ = std::move(print);
  }
  [[nodiscard]] std::vector<int32_t> encode(std::string_view text, bool) const override {
    const int number = encoded++;
    if (dawdle && number % 3 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(number % 7));
    std::vector<int32_t> ids;
    for (const char c : text) ids.push_back(static_cast<unsigned char>(c));
    return ids;
  }
  [[nodiscard]] std::string decode(std::span<const int32_t> ids, bool) const override {
    std::string text;
    for (const int32_t id : ids) text += static_cast<char>(id);
    return text;
  }
  [[nodiscard]] int64_t vocab_size() const override { return vocab_; }
  [[nodiscard]] std::optional<int32_t> token_id(std::string_view) const override { return {}; }
  void no_eos() { eos_.reset(); }

  mutable std::atomic<int> encoded{0};
  bool dawdle = false;

 private:
  int64_t vocab_;
};

}  // namespace longlora::test

// Writes a token file and its index so that an interrupted job can be taken up again and the file appears
// complete or not at all. Unfinished work lies in the folder FILE.partial:
//
//   tokens        ids so far            documents     int64 offset of each document's first token
//   state.json    what is being made, how much of both files counts, and the maker's own position in its
//   inputs lock          held by the process at work
#pragma once
#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "core/base/file.h"
#include "core/io/append_file.h"
#include "core/io/file_lock.h"
#include "core/io/token_file.h"

namespace longlora::io {

struct TokenSourceFile {
  std::string path;
  int64_t bytes = 0;
  int64_t modified = 0;  // in the file system's own ticks; tells an edited file of the same size
};

// What is made: unfinished work is taken up only if all of this is the same.
struct TokenFileInfo {
  int64_t vocab = 0;
  std::string tokenizer;  // fingerprint
  bool bos = false;       // whether documents begin with BOS
  std::vector<TokenSourceFile> sources;
};

class TokenWriter {
 public:
  // `target` ends in .bin. Exit 2 when the target exists or holds unfinished work of another kind, unless
  // `overwrite` (the old file stays until finish()); exit 1 when another process is at work on it.
  TokenWriter(fs::path target, TokenFileInfo info, bool overwrite);

  // The position given to the last checkpoint() of unfinished work, null when there is none.
  [[nodiscard]] const nlohmann::json& position() const { return position_; }
  [[nodiscard]] int64_t tokens() const;
  [[nodiscard]] int64_t documents() const;

  // A document of at least one token. Exit 1 when an id is outside the vocabulary.
  void append(std::span<const int32_t> document);
  // Everything so far survives whatever comes; `position` is what the maker needs to go on after it.
  void checkpoint(const nlohmann::json& position);
  // Puts file and index in place and removes the folder; `position` as in checkpoint(), should this be
  // interrupted.
  void finish(const nlohmann::json& position);
  // Removes the unfinished work.
  void discard();

 private:
  void write_index(const fs::path& to) const;

  fs::path target_, folder_;
  TokenFileInfo info_;
  TokenType type_;
  std::unique_ptr<FileLock> lock_;
  std::unique_ptr<AppendFile> tokens_, documents_;
  nlohmann::json position_;
  std::vector<uint16_t> narrow_;
};

}  // namespace longlora::io

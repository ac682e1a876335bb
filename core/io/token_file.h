// Token files: ids in a flat little-endian array, read through a memory map.
//
//   corpus.bin        uint16 or uint32 ids, nothing else (LongLoRA's own files are uint16 and have no index)
//   corpus.idx.json   written by `prepare`: {"format": "longlora-tokens", "version": 1, "dtype": "uint16",
//                     "tokens": n, "vocab": v, "tokenizer": fingerprint, "bos": bool,
//                     "sources": [{"path": p, "bytes": b}...], "documents": [offset of each document's first
//                     token]}
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/base/file.h"

namespace longlora::io {

enum class TokenType { uint16, uint32 };

[[nodiscard]] constexpr int64_t token_bytes(TokenType type) {
  return type == TokenType::uint16 ? 2 : 4;
}
[[nodiscard]] constexpr const char* token_type_name(TokenType type) {
  return type == TokenType::uint16 ? "uint16" : "uint32";
}
// The narrower type that holds every id below `vocab`.
[[nodiscard]] constexpr TokenType token_type_for(int64_t vocab) {
  return vocab <= 65536 ? TokenType::uint16 : TokenType::uint32;
}

// corpus.bin -> corpus.idx.json
[[nodiscard]] fs::path token_index_path(const fs::path& bin);

class TokenFile {
 public:
  // Maps `bin`, with its index where there is one. Exit 3 when the size is no multiple of the id's width,
  // when there are no tokens, or when index and file don't belong together.
  explicit TokenFile(const fs::path& bin);

  [[nodiscard]] const fs::path& path() const { return path_; }
  [[nodiscard]] TokenType type() const { return type_; }
  [[nodiscard]] int64_t tokens() const { return tokens_; }
  // Boundaries of the documents, 0 = d0 < d1 < ... = tokens; a file without index is one document.
  [[nodiscard]] std::span<const int64_t> documents() const { return documents_; }
  [[nodiscard]] bool indexed() const { return indexed_; }
  [[nodiscard]] const std::string& tokenizer() const { return tokenizer_; }  // its fingerprint; "" without index

  // Ids [begin, begin + out.size()) into `out`.
  void copy(int64_t begin, std::span<int32_t> out) const;

  // Exit 3 naming file, place, id and `vocab` if an id is `vocab` or more. Reads the whole file once.
  void check_vocabulary(int64_t vocab) const;
  // Exit 3 naming both fingerprints when the file was made with another tokenizer. A file without index
  // passes.
  void check_tokenizer(const std::string& fingerprint) const;
  // Of size, index and the ids at both ends: tells different data apart, wherever the file lies.
  [[nodiscard]] std::string fingerprint() const;

 private:
  void read_index(const fs::path& index);

  fs::path path_;
  MappedFile map_;
  TokenType type_ = TokenType::uint16;
  int64_t tokens_ = 0;
  std::vector<int64_t> documents_;
  bool indexed_ = false;
  std::string tokenizer_;
};

}  // namespace longlora::io

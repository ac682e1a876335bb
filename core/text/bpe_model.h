// The model part of a tokenizer.json of type BPE: a vocabulary, a list of merges, and what becomes of
// characters that the vocabulary does not have.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/text/json_fields.h"
#include "core/text/merge.h"
#include "core/text/safe_cuts.h"
#include "core/text/word_cache.h"

namespace longlora::text {

// Look-ups by string_view without making a string.
struct TextHash {
  using is_transparent = void;
  size_t operator()(std::string_view s) const { return WordCache::hash(s); }
};
using TextMap = std::unordered_map<std::string, int32_t, TextHash, std::equal_to<>>;

class BpeModel {
 public:
  // What encoding needs besides the model; one per thread.
  struct Workspace {
    Merger merger;
    WordCache cache;
  };

  // Reads the "model" object. With `on_bytes` words are bytes, and the vocabulary's strings are bytes written
  // as characters; otherwise words are UTF-8. Exit 3 naming what is damaged or not supported.
  BpeModel(const Json& json, const std::string& where, bool on_bytes);

  // Appends the ids of one word, which is not empty.
  void encode(std::string_view word, Workspace& workspace, std::vector<int32_t>& out) const;

  [[nodiscard]] std::optional<int32_t> id_of(std::string_view token) const;  // as written in the file
  [[nodiscard]] const std::string* token(int32_t id) const;                  // nullptr: no such id
  [[nodiscard]] int32_t highest_id() const { return static_cast<int32_t>(tokens_.size()) - 1; }
  [[nodiscard]] size_t size() const { return by_token_.size(); }
  // Everything that decides ids, as text.
  [[nodiscard]] std::string description() const;

 private:
  void read_vocabulary(const Json& json, const std::string& where);
  void read_merges(const Json& json, const std::string& where);
  void read_symbols();
  void encode_piece(std::string_view piece, Workspace& workspace, std::vector<int32_t>& out) const;
  void put_symbols(std::string_view piece, std::vector<int32_t>& symbols) const;
  [[nodiscard]] size_t next_cut(std::string_view word, size_t from) const;
  [[nodiscard]] int32_t symbol_at(std::string_view word, size_t at, size_t* length) const;

  std::vector<std::string> tokens_;  // by id; "" where there is none
  std::vector<bool> known_;          // by id
  TextMap by_token_;
  TextMap by_bytes_;  // on_bytes_: the same vocabulary by the bytes it stands for
  std::vector<Merge> merge_list_;
  std::optional<MergeTable> merges_;
  SafeCuts cuts_;               // for words of characters
  int32_t byte_symbol_[256];    // the id of a one-byte word, or -1
  int32_t byte_fallback_[256];  // the id of <0xHH>, or -1
  bool on_bytes_, ignore_merges_ = false, fuse_unknown_ = false, use_byte_fallback_ = false;
  std::optional<std::string> unknown_token_;
  std::string where_;
};

}  // namespace longlora::text

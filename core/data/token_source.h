// Everything that `data.train` or `data.valid` names, as one long array of tokens with document boundaries and, for
// fine-tuning, which of them are learned.
// Text is tokenized once into a token file (a cache that other processes and a resumed run find again); token
// files are mapped.
#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "core/base/file.h"
#include "core/io/token_file.h"
#include "core/text/tokenizer.h"

namespace longlora::data {

struct SourceOptions {
  std::vector<std::string> patterns;           // core/data/glob.h
  const text::Tokenizer* tokenizer = nullptr;  // null: only token files, and their index is not checked against it
  int64_t vocab = 0;                           // of the model: ids must be below
  fs::path cache;              // folder for the token file made from text; empty: a temporary one, gone at the end
  std::function<bool()> stop;  // while tokenizing; empty: stop_requested()
};

class TokenSource {
 public:
  // Exit 3 for files that are missing, damaged or don't fit the tokenizer or the vocabulary; 75 when stopped
  // by a signal while tokenizing (the work is saved and the next call goes on). If another process is
  // tokenizing the same texts into the same cache, waits for it.
  [[nodiscard]] static TokenSource open(const SourceOptions& options);

  // Tokens held in memory. `documents`: boundaries 0 = d0 < d1 < ...; `learn`: of each token whether it is to be
  // predicted.
  [[nodiscard]] static TokenSource of_tokens(std::vector<int32_t> ids, std::vector<int64_t> documents,
                                             std::vector<uint8_t> learn);

  [[nodiscard]] int64_t tokens() const { return documents_.back(); }
  // Boundaries of all documents, 0 = d0 < d1 < ... = tokens().
  [[nodiscard]] std::span<const int64_t> documents() const { return documents_; }
  // Tokens [begin, begin + out.size()) into `out`.
  void copy(int64_t begin, std::span<int32_t> out) const;
  // Whether the token at this place is to be predicted; of files, every one is.
  [[nodiscard]] bool learns(int64_t at) const { return learn_.empty() || learn_[static_cast<size_t>(at)] != 0; }
  // Tells different data apart, wherever it lies.
  [[nodiscard]] std::string fingerprint() const;

 private:
  explicit TokenSource(std::vector<io::TokenFile> files);

  std::vector<io::TokenFile> files_;
  std::vector<int64_t> starts_;  // of each file in the whole
  std::vector<int64_t> documents_;
  std::vector<int32_t> ids_;  // of_tokens
  std::vector<uint8_t> learn_;
  std::string ids_fingerprint_;
};

}  // namespace longlora::data

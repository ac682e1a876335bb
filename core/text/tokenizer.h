// Text to token ids and back, the same ids as the model's own tokenizer gives. Two kinds are read from a model folder:
// SentencePiece (`tokenizer.model`) and byte-level BPE (`tokenizer.json`).
#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace longlora::text {

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // Reads the tokenizer of a model folder. Exit 3 naming the file and what is unsupported or damaged in it.
  [[nodiscard]] static std::shared_ptr<const Tokenizer> load(const std::filesystem::path& folder);

  // Ids of `text`, without BOS or EOS. Special tokens written in the text become their ids only if `parse_special`.
  // Safe to call from several threads. Invalid UTF-8 is replaced by U+FFFD as the reference libraries do.
  [[nodiscard]] virtual std::vector<int32_t> encode(std::string_view text, bool parse_special = false) const = 0;

  // Text of `ids`; special tokens are left out when `skip_special`.
  [[nodiscard]] virtual std::string decode(std::span<const int32_t> ids, bool skip_special = true) const = 0;

  [[nodiscard]] virtual int64_t vocab_size() const = 0;  // highest id + 1, added tokens included
  [[nodiscard]] virtual std::optional<int32_t> token_id(std::string_view token) const = 0;

  [[nodiscard]] std::optional<int32_t> bos() const { return bos_; }
  [[nodiscard]] std::optional<int32_t> eos() const { return eos_; }
  [[nodiscard]] bool adds_bos() const { return adds_bos_; }  // the model expects a BOS at the start of a text
  // Changes whenever ids could: goes into token files, so that a file is never read with another tokenizer.
  [[nodiscard]] const std::string& fingerprint() const { return fingerprint_; }

 protected:
  std::optional<int32_t> bos_, eos_;
  bool adds_bos_ = false;
  std::string fingerprint_;
};

}  // namespace longlora::text

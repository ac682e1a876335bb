// Text to token ids and back, the same ids as the model's own tokenizer gives. Two kinds are read from a
// model folder: SentencePiece (`tokenizer.model`) and byte-pair encoding (`tokenizer.json`).
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

  // Whether the folder has a file that load() reads.
  [[nodiscard]] static bool is_in(const std::filesystem::path& folder);

  // Reads the tokenizer of a model folder: tokenizer.model where there is one, otherwise tokenizer.json; with
  // them tokenizer_config.json, special_tokens_map.json, added_tokens.json, generation_config.json and
  // config.json for special and added tokens. Exit 3 naming the file and what is unsupported or damaged in
  // it.
  [[nodiscard]] static std::shared_ptr<const Tokenizer> load(const std::filesystem::path& folder);

  // Ids of `text`, without BOS or EOS. Special tokens written in the text become their ids only if
  // `parse_special`; added tokens that are not special always do. Safe to call from several threads. Invalid
  // UTF-8 is replaced by U+FFFD as the reference libraries do.
  [[nodiscard]] virtual std::vector<int32_t> encode(std::string_view text, bool parse_special = false) const = 0;

  // Text of `ids`, valid UTF-8; special tokens are left out when `skip_special`. Ids that the tokenizer does
  // not have (rows of a padded vocabulary) are left out.
  [[nodiscard]] virtual std::string decode(std::span<const int32_t> ids, bool skip_special = true) const = 0;

  // A decoding that takes ids one by one; see StreamDecoder, which is the way to use it.
  class Decoding {
   public:
    virtual ~Decoding() = default;
    virtual void push(int32_t id, std::string& out) = 0;  // appends the text that is certain by now
    virtual void finish(std::string& out) = 0;            // appends the rest
  };
  // The tokenizer must outlive the decoding. This one gives everything at the end; the kinds do better.
  [[nodiscard]] virtual std::unique_ptr<Decoding> start_decoding(bool skip_special) const;

  [[nodiscard]] virtual int64_t vocab_size() const = 0;  // highest id + 1, added tokens included
  // The id of a token by its name in the file ("</s>", "<|eot_id|>", "▁the"), not of a text.
  [[nodiscard]] virtual std::optional<int32_t> token_id(std::string_view token) const = 0;

  [[nodiscard]] std::optional<int32_t> bos() const { return bos_; }
  [[nodiscard]] std::optional<int32_t> eos() const { return eos_; }
  [[nodiscard]] bool adds_bos() const { return adds_bos_; }  // the model expects a BOS at the start of a text
  // Changes whenever ids could: goes into token files, so that a file is never read with another tokenizer.
  // Stays the same when only the layout of the files changes.
  [[nodiscard]] const std::string& fingerprint() const { return fingerprint_; }

 protected:
  std::optional<int32_t> bos_, eos_;
  bool adds_bos_ = false;
  std::string fingerprint_;
};

}  // namespace longlora::text

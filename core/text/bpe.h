// A tokenizer of kind tokenizer.json: added tokens are cut out, the rest is normalized, split into words and
// encoded by the BPE model.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "core/text/added_tokens.h"
#include "core/text/bpe_model.h"
#include "core/text/decoder.h"
#include "core/text/normalizer.h"
#include "core/text/pool.h"
#include "core/text/pretokenizer.h"
#include "core/text/tokenizer.h"

namespace longlora::text {

// The parts that the reader makes of a tokenizer.json.
struct BpeParts {
  Normalizer normalizer;
  PreTokenizer pretokenizer;
  BpeModel model;
  Decoder decoder;
  std::vector<AddedToken> added;
  std::optional<int32_t> bos, eos;
  bool adds_bos = false;
  std::string fingerprint;
};

class BpeTokenizer final : public Tokenizer {
 public:
  explicit BpeTokenizer(BpeParts parts);

  [[nodiscard]] std::vector<int32_t> encode(std::string_view text, bool parse_special) const override;
  [[nodiscard]] std::string decode(std::span<const int32_t> ids, bool skip_special) const override;
  [[nodiscard]] std::unique_ptr<Decoding> start_decoding(bool skip_special) const override;
  [[nodiscard]] int64_t vocab_size() const override { return vocab_size_; }
  [[nodiscard]] std::optional<int32_t> token_id(std::string_view token) const override;

 private:
  class Stream;
  // What one encode() needs for itself: taken from a pool and given back, so that caches stay warm and calls
  // from several threads never meet.
  struct Workspace {
    RegexWorkspace regex;
    BpeModel::Workspace model;
    std::string normalized;
  };
  void encode_part(std::string_view part, bool at_start, bool parse_special, Workspace& workspace,
                   std::vector<int32_t>& out) const;

  struct Display {
    std::string text;  // what the decoder gets for an added token
    bool special;
  };
  BpeParts parts_;
  AddedTokenFinder in_raw_, in_normalized_;  // tokens searched before and after normalizing
  TextMap added_ids_;
  std::unordered_map<int32_t, Display> added_;
  int64_t vocab_size_ = 0;
  mutable Pool<Workspace> workspaces_;
};

}  // namespace longlora::text

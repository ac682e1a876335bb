// Text while it is being generated: ids go in one by one, complete characters come out as soon as they are
// certain. All that comes out together is what Tokenizer::decode gives for all the ids.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "core/text/tokenizer.h"

namespace longlora::text {

class StreamDecoder {
 public:
  // To continue a prompt, push its ids first and drop what comes out: how a token reads may depend on what is
  // before it (a leading space).
  explicit StreamDecoder(std::shared_ptr<const Tokenizer> tokenizer, bool skip_special = true);

  // The text that became certain with this id, often "" in the middle of a character. Valid UTF-8.
  [[nodiscard]] std::string push(int32_t id);
  [[nodiscard]] std::string push(std::span<const int32_t> ids);
  // What was still held back; the decoder must not be used after it.
  [[nodiscard]] std::string finish();

 private:
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::unique_ptr<Tokenizer::Decoding> decoding_;
};

}  // namespace longlora::text

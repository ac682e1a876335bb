#include "core/text/stream_decoder.h"

namespace longlora::text {

StreamDecoder::StreamDecoder(std::shared_ptr<const Tokenizer> tokenizer, bool skip_special)
    : tokenizer_(std::move(tokenizer)), decoding_(tokenizer_->start_decoding(skip_special)) {}

std::string StreamDecoder::push(int32_t id) {
  return push(std::span(&id, 1));
}

std::string StreamDecoder::push(std::span<const int32_t> ids) {
  std::string out;
  for (const int32_t id : ids) decoding_->push(id, out);
  return out;
}

std::string StreamDecoder::finish() {
  std::string out;
  decoding_->finish(out);
  return out;
}

}  // namespace longlora::text

// The settings inside a SentencePiece model that its library does not tell: read from the serialized message
// (sentencepiece_model.proto), of which only a few fields matter here.
#pragma once
#include <string_view>

namespace longlora::text {

struct SentencePieceSpec {
  bool is_bpe = false;
  bool byte_fallback = false;
  bool suffix_spaces = false;  // treat_whitespace_as_suffix
  bool rewrites_text = true;   // normalizes, or removes spaces

  // Llama and Mistral models: nothing happens beyond two neighbouring characters but merges.
  [[nodiscard]] bool only_merges() const { return is_bpe && byte_fallback && !suffix_spaces && !rewrites_text; }
};

// `bytes` is a model that the library has accepted. What cannot be read leaves the defaults, which are the safe ones.
[[nodiscard]] SentencePieceSpec sentencepiece_spec(std::string_view bytes);

}  // namespace longlora::text

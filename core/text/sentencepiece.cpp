// Tokenizers of kind tokenizer.model, through the sentencepiece library (Llama-1 and -2, Mistral 7B). The
// library does everything within a stretch of text; special and added tokens, which it does not know, are cut
// out around it.
#include <algorithm>

#include <sentencepiece_processor.h>

#include "core/base/error.h"
#include "core/base/file.h"
#include "core/base/hash.h"
#include "core/text/added_vocabulary.h"
#include "core/text/kinds.h"
#include "core/text/pool.h"
#include "core/text/safe_cuts.h"
#include "core/text/sentencepiece_spec.h"
#include "core/text/unicode.h"
#include "core/text/word_cache.h"

namespace longlora::text {

namespace {

using sentencepiece::SentencePieceProcessor;

// normalizer_spec { add_dummy_prefix: false } in the wire format: appended to a serialized model it overrides
// that one field (protobuf merges repeated occurrences of a message). For a stretch that is not the beginning
// of a text.
constexpr std::string_view kNoDummyPrefix("\x1a\x02\x18\x00", 4);

// SentencePiece before 0.1.97 (Ubuntu 22.04) has a string view type of its own.
absl::string_view view(std::string_view text) {
  return {text.data(), text.size()};
}

std::unique_ptr<SentencePieceProcessor> processor_of(const std::string& bytes, const std::string& file) {
  auto processor = std::make_unique<SentencePieceProcessor>();
  if (const auto status = processor->LoadFromSerializedProto(bytes); !status.ok())
    input_error("{}: not a SentencePiece model ({}); if this is a checkout with Git LFS, fetch the real file", file,
                status.ToString());
  return processor;
}

class SentencePieceTokenizer final : public Tokenizer {
 public:
  SentencePieceTokenizer(const fs::path& path, const FolderSettings& settings) {
    const std::string file = path.string(), bytes = read_file(path);
    first_ = processor_of(bytes, file);
    inner_ = processor_of(bytes + std::string(kNoDummyPrefix), file);
    legacy_ = settings.legacy;
    pieces_ = first_->GetPieceSize();
    if (sentencepiece_spec(bytes).only_merges()) {
      cuts_.emplace();
      for (int id = 0; id < pieces_; ++id)
        if (!first_->IsControl(id) && !first_->IsUnknown(id) && !first_->IsByte(id))
          cuts_->keep_together(first_->IdToPiece(id));
    }
    anchor_text_ = first_->DecodeIds({first_->unk_id()}).size();

    AddedVocabulary added([this](const std::string& token) { return piece_id(token); }, pieces_, file);
    for (int id = 0; id < pieces_; ++id)
      if (first_->IsControl(id) || first_->IsUnknown(id)) {
        AddedToken token;
        token.content = first_->IdToPiece(id), token.id = id, token.special = true;
        added.add(std::move(token));
      }
    added.add(settings);
    vocab_size_ = pieces_;
    for (const AddedToken& token : added.tokens()) {
      vocab_size_ = std::max<int64_t>(vocab_size_, token.id + 1);
      finder_.add(token.content, token);
      added_.emplace(token.id, token);
    }
    bos_ = special_id(settings.bos, settings.bos_id, added, vocab_size_);
    eos_ = special_id(settings.eos, settings.eos_id, added, vocab_size_);
    if (!settings.bos && first_->bos_id() >= 0) bos_ = first_->bos_id();
    if (!settings.eos && first_->eos_id() >= 0) eos_ = first_->eos_id();
    adds_bos_ = bos_ && settings.add_bos.value_or(true);
    fingerprint_ = longlora::fingerprint(bytes + added.description() + (settings.legacy ? "legacy" : ""));
  }

  [[nodiscard]] std::vector<int32_t> encode(std::string_view text, bool parse_special) const override {
    std::vector<int32_t> out;
    finder_.cut(
        text, parse_special,
        [&](size_t begin, size_t end) { encode_stretch(text.substr(begin, end - begin), at(begin == 0), out); },
        [&](int32_t id) { out.push_back(id); });
    return out;
  }

  [[nodiscard]] std::string decode(std::span<const int32_t> ids, bool skip_special) const override {
    std::string out;
    const auto stream = start_decoding(skip_special);
    for (const int32_t id : ids) stream->push(id, out);
    stream->finish(out);
    return out;
  }

  [[nodiscard]] std::unique_ptr<Decoding> start_decoding(bool skip_special) const override;
  [[nodiscard]] int64_t vocab_size() const override { return vocab_size_; }
  [[nodiscard]] std::optional<int32_t> token_id(std::string_view token) const override {
    for (const auto& [id, added] : added_)
      if (added.content == token) return id;
    return piece_id(token);
  }

 private:
  class Stream;

  // Which one encodes a stretch. Before transformers' "legacy": false each stretch between special tokens got the
  // dummy prefix, since then only the text's beginning does.
  [[nodiscard]] const SentencePieceProcessor& at(bool start) const { return start || legacy_ ? *first_ : *inner_; }

  static void encode_whole(std::string_view text, const SentencePieceProcessor& library, std::vector<int32_t>& out) {
    std::vector<int> ids;
    const auto status = library.Encode(view(text), &ids);
    if (!status.ok()) fail("SentencePiece could not encode a text: {}", status.ToString());
    out.insert(out.end(), ids.begin(), ids.end());
  }

  // The library merges over a whole text, slowly. Where the model allows it, the text goes there in words, each once.
  void encode_stretch(std::string_view text, const SentencePieceProcessor& library, std::vector<int32_t>& out) const {
    if (!cuts_ || !is_valid_utf8(text)) return encode_whole(text, library, out);
    const auto cache = caches_.take();
    for (size_t from = 0; from < text.size();) {
      const size_t end = next_cut(text, from);
      const std::string_view word = text.substr(from, end - from);
      const bool remember = from > 0 && word.size() <= WordCache::kLongestWord;
      const uint64_t hash = remember ? WordCache::hash(word) : 0;
      if (!remember || !(*cache).find(word, hash, out)) {
        const size_t before = out.size();
        encode_whole(word, from == 0 ? library : *inner_, out);
        if (remember) (*cache).keep(word, hash, std::span(out).subspan(before));
      }
      from = end;
    }
  }

  [[nodiscard]] size_t next_cut(std::string_view text, size_t from) const {
    const auto as_piece = [](char32_t c) { return c == ' ' ? kSpace : c; };
    char32_t c = as_piece(utf8_at(text, from));
    for (size_t i = from + utf8_length(text[from]); i < text.size(); i += utf8_length(text[i])) {
      const char32_t next = as_piece(utf8_at(text, i));
      if (cuts_->between(c, next)) return i;
      c = next;
    }
    return text.size();
  }

  [[nodiscard]] std::optional<int32_t> piece_id(std::string_view piece) const {
    const int id = first_->PieceToId(view(piece));  // the unknown token's id for anything that is no piece
    if (id < 0 || id >= pieces_ || first_->IdToPiece(id) != piece) return std::nullopt;
    return id;
  }

  static constexpr char32_t kSpace = 0x2581;  // how a space is written in a piece

  std::unique_ptr<SentencePieceProcessor> first_, inner_;  // with the model's dummy prefix, and without one
  bool legacy_ = true;
  std::optional<SafeCuts> cuts_;
  mutable Pool<WordCache> caches_;
  int pieces_ = 0;
  size_t anchor_text_ = 0;  // length of the unknown piece's text
  int64_t vocab_size_ = 0;
  AddedTokenFinder finder_;
  std::unordered_map<int32_t, AddedToken> added_;  // control pieces included
};

// The library decodes whole lists only. So a stretch of text is decoded from its beginning until the first
// text comes out (the dummy prefix goes away there), and after that behind an anchor, a piece that is text
// itself. The bytes of a character (<0xHH> pieces) stay together.
class SentencePieceTokenizer::Stream final : public Tokenizer::Decoding {
 public:
  Stream(const SentencePieceTokenizer& tokenizer, bool skip_special) : tokenizer_(tokenizer), skip_(skip_special) {}

  void push(int32_t id, std::string& out) override {
    const auto& library = *tokenizer_.first_;
    if (const auto added = tokenizer_.added_.find(id);
        added != tokenizer_.added_.end() && !(id < tokenizer_.pieces_ && library.IsUnknown(id))) {
      flush(out);
      if (skip_ && added->second.special) return;
      out += added->second.content;
      at_start_ = has_text_ = false;
      held_.clear();
      return;
    }
    if (id < 0 || id >= tokenizer_.pieces_) return;
    if (!library.IsByte(id)) {
      flush(out);
      held_.push_back(id);
      return flush(out);
    }
    held_.push_back(id);
    bytes_ += static_cast<char>(std::stoi(library.IdToPiece(id).substr(3, 2), nullptr, 16));
    if (incomplete_tail(bytes_) == 0) flush(out);
  }
  void finish(std::string& out) override { flush(out); }

 private:
  void flush(std::string& out) {
    bytes_.clear();
    if (held_.empty()) return;
    const auto& library = tokenizer_.at(at_start_);
    if (!has_text_) {
      const std::string text = library.DecodeIds(held_);
      if (text.empty()) return;  // nothing but the dummy prefix yet: keep the ids
      out += text;
      has_text_ = true;
    } else {
      held_.insert(held_.begin(), tokenizer_.first_->unk_id());
      out += std::string_view(library.DecodeIds(held_)).substr(tokenizer_.anchor_text_);
    }
    held_.clear();
  }

  const SentencePieceTokenizer& tokenizer_;
  bool skip_;
  bool at_start_ = true;   // no token has been written out by name yet
  bool has_text_ = false;  // the current stretch has
  std::vector<int> held_;
  std::string bytes_;  // what the byte pieces at the end of held_ stand for
};

std::unique_ptr<Tokenizer::Decoding> SentencePieceTokenizer::start_decoding(bool skip_special) const {
  return std::make_unique<Stream>(*this, skip_special);
}

}  // namespace

std::shared_ptr<const Tokenizer> load_sentencepiece(const fs::path& path, const FolderSettings& settings) {
  return std::make_shared<SentencePieceTokenizer>(path, settings);
}

bool is_rank_file(const fs::path& path) {
  // "IQ== 0", then more lines of the kind; a serialized model begins with the byte 0x0a.
  const std::string bytes = read_file(path);
  const std::string_view line = std::string_view(bytes).substr(0, bytes.find('\n'));
  const size_t space = line.find(' ');
  return space != std::string_view::npos && space + 1 < line.size() &&
         line.substr(0, space).find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=") ==
             std::string_view::npos &&
         line.substr(space + 1).find_first_not_of("0123456789") == std::string_view::npos;
}

}  // namespace longlora::text

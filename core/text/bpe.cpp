#include "core/text/bpe.h"

#include <algorithm>

#include "core/text/unicode.h"

namespace longlora::text {

BpeTokenizer::BpeTokenizer(BpeParts parts) : parts_(std::move(parts)) {
  bos_ = parts_.bos, eos_ = parts_.eos, adds_bos_ = parts_.adds_bos, fingerprint_ = parts_.fingerprint;
  vocab_size_ = parts_.model.highest_id() + 1;
  RegexWorkspace workspace;
  for (const AddedToken& token : parts_.added) {
    std::string pattern = token.content;
    if (token.normalized) parts_.normalizer.apply(pattern, workspace);
    (token.normalized ? in_normalized_ : in_raw_).add(pattern, token);
    vocab_size_ = std::max<int64_t>(vocab_size_, token.id + 1);
    added_ids_.emplace(token.content, token.id);
    added_[token.id] = {std::move(pattern), token.special};
  }
}

std::vector<int32_t> BpeTokenizer::encode(std::string_view text, bool parse_special) const {
  std::string mended;
  if (!is_valid_utf8(text)) {
    append_valid_utf8(mended, text);
    text = mended;
  }
  std::vector<int32_t> out;
  out.reserve(text.size() / 4 + 4);
  const auto workspace = workspaces_.take();
  const auto plain = [&](size_t begin, size_t end) {
    encode_part(text.substr(begin, end - begin), begin == 0, parse_special, *workspace, out);
  };
  in_raw_.cut(text, parse_special, plain, [&](int32_t id) { out.push_back(id); });
  return out;
}

void BpeTokenizer::encode_part(std::string_view part, bool at_start, bool parse_special, Workspace& workspace,
                               std::vector<int32_t>& out) const {
  if (!parts_.normalizer.empty()) {
    workspace.normalized = part;
    parts_.normalizer.apply(workspace.normalized, workspace.regex);
    part = workspace.normalized;
  }
  const auto word = [&](std::string_view piece, bool) { parts_.model.encode(piece, workspace.model, out); };
  const auto plain = [&](size_t begin, size_t end) {
    parts_.pretokenizer.split(part.substr(begin, end - begin), at_start && begin == 0, workspace.regex, word);
  };
  in_normalized_.cut(part, parse_special, plain, [&](int32_t id) { out.push_back(id); });
}

class BpeTokenizer::Stream final : public Tokenizer::Decoding {
 public:
  Stream(const BpeTokenizer& tokenizer, bool skip_special)
      : tokenizer_(tokenizer), skip_special_(skip_special), chain_(tokenizer.parts_.decoder.start(&text_)) {}

  void push(int32_t id, std::string& out) override {
    if (const auto added = tokenizer_.added_.find(id); added != tokenizer_.added_.end()) {
      if (skip_special_ && added->second.special) return;
      chain_->push(added->second.text, true);
    } else if (const std::string* token = tokenizer_.parts_.model.token(id)) {
      chain_->push(*token, true);
    }
    give(out);
  }
  void finish(std::string& out) override {
    chain_->finish();
    give(out);
  }

 private:
  void give(std::string& out) {
    out += text_;
    text_.clear();
  }
  const BpeTokenizer& tokenizer_;
  bool skip_special_;
  std::string text_;
  std::unique_ptr<Decoder::Stage> chain_;
};

std::unique_ptr<Tokenizer::Decoding> BpeTokenizer::start_decoding(bool skip_special) const {
  return std::make_unique<Stream>(*this, skip_special);
}

std::string BpeTokenizer::decode(std::span<const int32_t> ids, bool skip_special) const {
  std::string out;
  Stream stream(*this, skip_special);
  for (const int32_t id : ids) stream.push(id, out);
  stream.finish(out);
  return out;
}

std::optional<int32_t> BpeTokenizer::token_id(std::string_view token) const {
  if (const auto found = added_ids_.find(token); found != added_ids_.end()) return found->second;
  return parts_.model.id_of(token);
}

}  // namespace longlora::text

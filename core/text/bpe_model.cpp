#include "core/text/bpe_model.h"

#include <algorithm>

#include "core/base/error.h"
#include "core/text/unicode.h"

namespace longlora::text {

namespace {

constexpr int64_t kHighestId = 1 << 26;  // more is a damaged file, not a vocabulary

std::string byte_token(unsigned char byte) {
  return fmt::format("<0x{:02X}>", byte);
}

}  // namespace

BpeModel::BpeModel(const Json& json, const std::string& where, bool on_bytes) : on_bytes_(on_bytes), where_(where) {
  allow_keys(json, where,
             {"type", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk",
              "byte_fallback", "ignore_merges", "vocab", "merges"});
  if (json.contains("type") && type_of(json, where) != "BPE") unsupported_type(type_of(json, where), where);
  if (optional_or<double>(json, "dropout", where, 0.0) != 0.0)
    input_error("{}: 'dropout' (random splitting) is not supported; set it to null", where);
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"})
    if (!optional_or<std::string>(json, key, where, "").empty()) input_error("{}: '{}' is not supported", where, key);
  fuse_unknown_ = optional_or<bool>(json, "fuse_unk", where, false);
  use_byte_fallback_ = optional_or<bool>(json, "byte_fallback", where, false);
  ignore_merges_ = optional_or<bool>(json, "ignore_merges", where, false);
  if (json.contains("unk_token") && !json["unk_token"].is_null())
    unknown_token_ = required<std::string>(json, "unk_token", where);
  read_vocabulary(json, where);
  read_merges(json, where);
  read_symbols();
}

void BpeModel::read_vocabulary(const Json& json, const std::string& where) {
  const auto vocab = json.find("vocab");
  if (vocab == json.end() || !vocab->is_object()) input_error("{}: 'vocab' is missing or no object", where);
  by_token_.reserve(vocab->size());
  for (const auto& item : vocab->items()) {
    const Json& value = item.value();
    if (!value.is_number_integer()) input_error("{}.vocab: the id of '{}' is no whole number", where, item.key());
    const auto id = value.get<int64_t>();
    if (id < 0 || id > kHighestId) input_error("{}.vocab: the id {} of '{}' is out of range", where, id, item.key());
    const auto at = static_cast<size_t>(id);
    if (at >= tokens_.size()) tokens_.resize(at + 1), known_.resize(at + 1);
    if (known_[at]) input_error("{}.vocab: '{}' and '{}' both have the id {}", where, tokens_[at], item.key(), id);
    tokens_[at] = item.key(), known_[at] = true;
    by_token_.emplace(item.key(), static_cast<int32_t>(id));
  }
  if (on_bytes_ && ignore_merges_)
    for (const auto& [token, id] : by_token_)
      if (auto bytes = bytes_of_token(token)) by_bytes_.emplace(std::move(*bytes), id);
}

void BpeModel::read_merges(const Json& json, const std::string& where) {
  const auto merges = json.find("merges");
  if (merges == json.end() || !merges->is_array()) input_error("{}: 'merges' is missing or no list", where);
  merge_list_.reserve(merges->size());
  std::string left, right;
  for (size_t rank = 0; rank < merges->size(); ++rank) {
    const Json& merge = (*merges)[rank];
    if (merge.is_string()) {
      const auto& line = merge.get_ref<const std::string&>();
      if (line.starts_with("#version")) continue;
      const size_t space = line.find(' ');
      if (space == std::string::npos || line.find(' ', space + 1) != std::string::npos)
        input_error("{}.merges[{}]: '{}' is not two tokens with a space between them", where, rank, line);
      left = line.substr(0, space), right = line.substr(space + 1);
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      left = merge[0].get<std::string>(), right = merge[1].get<std::string>();
    } else {
      input_error("{}.merges[{}]: two tokens are expected", where, rank);
    }
    const auto id = [&](const std::string& token) {
      const auto found = by_token_.find(token);
      if (found == by_token_.end()) input_error("{}.merges[{}]: '{}' is not in the vocabulary", where, rank, token);
      return found->second;
    };
    merge_list_.push_back({id(left), id(right), id(left + right)});
  }
  merges_.emplace(merge_list_);
}

void BpeModel::read_symbols() {
  for (size_t byte = 0; byte < 256; ++byte) {
    const auto lookup = [&](std::string_view token) { return id_of(token).value_or(-1); };
    const char c = static_cast<char>(byte);
    byte_symbol_[byte] = on_bytes_ ? lookup(byte_characters()[byte]) : byte < 0x80 ? lookup({&c, 1}) : -1;
    byte_fallback_[byte] = lookup(byte_token(static_cast<unsigned char>(byte)));
  }
  if (on_bytes_ || ignore_merges_) return;
  for (const Merge& merge : merge_list_) cuts_.keep_together(tokens_[static_cast<size_t>(merge.result)]);
}

int32_t BpeModel::symbol_at(std::string_view word, size_t at, size_t* length) const {
  const auto byte = static_cast<unsigned char>(word[at]);
  *length = on_bytes_ ? 1 : utf8_length(word[at]);
  if (*length == 1) return byte_symbol_[byte];
  const auto found = by_token_.find(word.substr(at, *length));
  return found == by_token_.end() ? -1 : found->second;
}

// The first place behind `from` where the word can be cut without changing its ids: between two characters of
// the vocabulary that no merge ever joins, because any token over that place would be the result of such a
// merge.
size_t BpeModel::next_cut(std::string_view word, size_t from) const {
  size_t length = 0;
  bool known = symbol_at(word, from, &length) >= 0;
  char32_t c = utf8_at(word, from);
  for (size_t at = from + length; at < word.size(); at += length) {
    const bool next_known = symbol_at(word, at, &length) >= 0;
    const char32_t next = utf8_at(word, at);
    if (known && next_known && cuts_.between(c, next)) return at;
    known = next_known, c = next;
  }
  return word.size();
}

void BpeModel::encode(std::string_view word, Workspace& workspace, std::vector<int32_t>& out) const {
  if (on_bytes_ || ignore_merges_ || word.size() <= WordCache::kLongestWord) return encode_piece(word, workspace, out);
  for (size_t from = 0; from < word.size();) {
    const size_t end = next_cut(word, from);
    encode_piece(word.substr(from, end - from), workspace, out);
    from = end;
  }
}

void BpeModel::encode_piece(std::string_view piece, Workspace& workspace, std::vector<int32_t>& out) const {
  const bool is_short = piece.size() <= WordCache::kLongestWord;
  const uint64_t hash = is_short ? WordCache::hash(piece) : 0;
  if (is_short && workspace.cache.find(piece, hash, out)) return;
  std::vector<int32_t>& symbols = workspace.merger.symbols;
  symbols.clear();
  if (ignore_merges_) {
    const TextMap& whole = on_bytes_ ? by_bytes_ : by_token_;
    if (const auto found = whole.find(piece); found != whole.end()) symbols.push_back(found->second);
  }
  if (symbols.empty()) {
    put_symbols(piece, symbols);
    workspace.merger.merge(*merges_);
  }
  out.insert(out.end(), symbols.begin(), symbols.end());
  if (is_short) workspace.cache.keep(piece, hash, symbols);
}

// One symbol a character; unknown ones become their bytes (<0xHH>) or the unknown token, which is written
// when the next known character comes or the word ends, as the reference library does.
void BpeModel::put_symbols(std::string_view piece, std::vector<int32_t>& symbols) const {
  std::optional<int32_t> unknown;
  const auto flush = [&] {
    if (unknown) symbols.push_back(*unknown);
    unknown.reset();
  };
  size_t length = 0;
  for (size_t at = 0; at < piece.size(); at += length) {
    const int32_t symbol = symbol_at(piece, at, &length);
    if (symbol >= 0) {
      flush();
      symbols.push_back(symbol);
      continue;
    }
    const std::string_view character = on_bytes_
                                           ? std::string_view(byte_characters()[static_cast<unsigned char>(piece[at])])
                                           : piece.substr(at, length);
    const auto fallback = [&](char c) { return byte_fallback_[static_cast<unsigned char>(c)]; };
    if (use_byte_fallback_ &&
        std::all_of(character.begin(), character.end(), [&](char c) { return fallback(c) >= 0; })) {
      for (const char c : character) symbols.push_back(fallback(c));
    } else if (unknown_token_) {
      const auto id = id_of(*unknown_token_);
      if (!id)
        input_error("{}: the text has characters outside the vocabulary and '{}' is not in it", where_,
                    *unknown_token_);
      if (!fuse_unknown_) flush();
      unknown = *id;
    }
  }
  flush();
}

std::optional<int32_t> BpeModel::id_of(std::string_view token) const {
  const auto found = by_token_.find(token);
  if (found == by_token_.end()) return std::nullopt;
  return found->second;
}

const std::string* BpeModel::token(int32_t id) const {
  const auto at = static_cast<size_t>(id);
  return id >= 0 && at < tokens_.size() && known_[at] ? &tokens_[at] : nullptr;
}

std::string BpeModel::description() const {
  std::string text = fmt::format("bpe {} {} {} {} {}\n", on_bytes_, ignore_merges_, fuse_unknown_, use_byte_fallback_,
                                 unknown_token_.value_or(""));
  for (size_t id = 0; id < tokens_.size(); ++id)
    if (known_[id]) text += fmt::format("{} {}\n", id, tokens_[id]);
  for (const Merge& merge : merge_list_) text += fmt::format("{} {} {}\n", merge.left, merge.right, merge.result);
  return text;
}

}  // namespace longlora::text

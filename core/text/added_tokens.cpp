#include "core/text/added_tokens.h"

#include "core/text/unicode.h"

namespace longlora::text {

namespace {

size_t character_before(std::string_view text, size_t at) {
  do --at;
  while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80);
  return at;
}

bool touches_word(std::string_view text, size_t begin, size_t end) {
  return (begin > 0 && is_word(utf8_at(text, character_before(text, begin)))) ||
         (end < text.size() && is_word(utf8_at(text, end)));
}

}  // namespace

void AddedTokenFinder::add(std::string_view pattern, const AddedToken& token) {
  if (pattern.empty()) return;
  uint32_t node = 0;
  for (const char c : pattern) {
    const auto [edge, fresh] =
        trie_[node].next.try_emplace(static_cast<unsigned char>(c), static_cast<uint32_t>(trie_.size()));
    node = edge->second;
    if (fresh) trie_.emplace_back();
  }
  trie_[node].token = static_cast<int32_t>(tokens_.size());
  tokens_.push_back(token);
  begins_[static_cast<unsigned char>(pattern[0])] = true;
}

void AddedTokenFinder::cut(std::string_view text, bool parse_special, FunctionRef<void(size_t, size_t)> plain,
                           FunctionRef<void(int32_t)> found) const {
  size_t done = 0;
  for (size_t at = 0; at < text.size();) {
    if (!begins_[static_cast<unsigned char>(text[at])]) {
      ++at;
      continue;
    }
    uint32_t node = 0;
    int32_t token = -1;
    size_t stop = at;
    for (size_t i = at; i < text.size(); ++i) {
      const auto edge = trie_[node].next.find(static_cast<unsigned char>(text[i]));
      if (edge == trie_[node].next.end()) break;
      node = edge->second;
      if (trie_[node].token >= 0) token = trie_[node].token, stop = i + 1;
    }
    if (token < 0) {
      ++at;
      continue;
    }
    const AddedToken& match = tokens_[static_cast<size_t>(token)];
    size_t start = at;
    at = stop;  // also when the match does not count: its text is not searched again
    if (match.special && !parse_special) continue;
    if (match.single_word && touches_word(text, start, stop)) continue;
    while (match.lstrip && start > done) {
      const size_t before = character_before(text, start);
      if (before < done || !is_whitespace(utf8_at(text, before))) break;
      start = before;
    }
    while (match.rstrip && stop < text.size() && is_whitespace(utf8_at(text, stop))) stop += utf8_length(text[stop]);
    if (start > done) plain(done, start);
    found(match.id);
    done = stop;
  }
  if (done < text.size()) plain(done, text.size());
}

}  // namespace longlora::text

#include "core/text/added_vocabulary.h"

#include "core/base/error.h"

namespace longlora::text {

void AddedVocabulary::add(AddedToken token) {
  if (token.content.empty()) return;
  const std::optional<int32_t> known = id_of(token.content);
  const int32_t id = known ? *known : next_;
  if (token.id >= 0 && token.id != id)
    input_error("{}: the added token '{}' has the id {}, but {} {}", where_, token.content, token.id,
                known ? "in the vocabulary it has the id" : "the next free id is", id);
  if (!known) ++next_;
  token.id = id;
  for (AddedToken& other : tokens_)
    if (other.id == id) {
      other = std::move(token);
      return;
    }
  tokens_.push_back(std::move(token));
}

void AddedVocabulary::add(const FolderSettings& settings) {
  for (const AddedToken& token : settings.added) add(token);
  for (const AddedToken& token : settings.named) {
    bool found = false;
    for (AddedToken& other : tokens_)
      if (other.content == token.content) found = other.special = true;
    if (!found) add(token);
  }
}

std::optional<int32_t> AddedVocabulary::id_of(const std::string& token) const {
  for (const AddedToken& added : tokens_)
    if (added.content == token) return added.id;
  return in_model_(token);
}

std::string AddedVocabulary::description() const {
  std::string text;
  for (const AddedToken& token : tokens_)
    text += fmt::format("{} {} {}{}{}{}{}\n", token.id, token.content, token.special, token.single_word, token.lstrip,
                        token.rstrip, token.normalized);
  return text;
}

std::optional<int32_t> special_id(const std::optional<std::string>& name, const std::optional<int32_t>& id,
                                  const AddedVocabulary& vocabulary, int64_t vocab_size) {
  if (name) return vocabulary.id_of(*name);
  if (id && *id >= 0 && *id < vocab_size) return id;
  return std::nullopt;
}

}  // namespace longlora::text

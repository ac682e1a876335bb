// Puts together the added tokens of a tokenizer from its own file and from the files beside it, with the ids
// that the reference library would give them.
#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "core/text/added_tokens.h"
#include "core/text/folder_settings.h"

namespace longlora::text {

class AddedVocabulary {
 public:
  using ModelLookup = std::function<std::optional<int32_t>(const std::string&)>;

  // `in_model` finds a token of the model's own vocabulary, `first_free` is the id that a new token gets.
  AddedVocabulary(ModelLookup in_model, int32_t first_free, std::string where)
      : in_model_(std::move(in_model)), next_(first_free), where_(std::move(where)) {}

  // A token with the id that its file says. A known one takes the new flags. Exit 3 when the id is another
  // than the one that the vocabulary gives it: text would be encoded differently by different programs.
  void add(AddedToken token);
  // All that the files beside say: tokens with ids, then the special tokens that are only named.
  void add(const FolderSettings& settings);

  [[nodiscard]] std::optional<int32_t> id_of(const std::string& token) const;
  [[nodiscard]] const std::vector<AddedToken>& tokens() const { return tokens_; }
  // Everything that decides ids, as text.
  [[nodiscard]] std::string description() const;

 private:
  ModelLookup in_model_;
  int32_t next_;
  std::string where_;
  std::vector<AddedToken> tokens_;
};

// BOS or EOS: the token named in the settings, or the id from the model's configuration when it is in range.
[[nodiscard]] std::optional<int32_t> special_id(const std::optional<std::string>& name,
                                                const std::optional<int32_t>& id, const AddedVocabulary& vocabulary,
                                                int64_t vocab_size);

}  // namespace longlora::text

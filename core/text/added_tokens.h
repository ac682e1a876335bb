// Tokens that stand beside the model's own vocabulary: special tokens such as <s> or <|eot_id|>, and words
// that a fine-tune added. They are cut out of a text before the model sees it.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/text/function_ref.h"

namespace longlora::text {

struct AddedToken {
  std::string content;
  int32_t id = -1;
  bool special = false;      // left out when decoding for people; matched only on request when encoding
  bool single_word = false;  // matches only where no letter or digit touches it
  bool lstrip = false;       // takes the white space before it along
  bool rstrip = false;       // and behind it
  bool normalized = false;   // searched in the normalized text
};

// Finds the tokens of one set in a text: at each place the longest, from left to right.
class AddedTokenFinder {
 public:
  // `tokens` with the text to search for, which differs from the content when it is normalized.
  void add(std::string_view pattern, const AddedToken& token);
  [[nodiscard]] bool empty() const { return tokens_.empty(); }

  // Cuts `text`: plain(begin, end) for what lies between tokens (never empty) and found(id) for each token. A
  // special token that is not wanted (`parse_special` false) stays part of the plain text.
  void cut(std::string_view text, bool parse_special, FunctionRef<void(size_t begin, size_t end)> plain,
           FunctionRef<void(int32_t id)> found) const;

 private:
  struct Node {
    std::unordered_map<unsigned char, uint32_t> next;
    int32_t token = -1;  // index into tokens_ of the pattern that ends here
  };
  std::vector<AddedToken> tokens_;
  std::vector<Node> trie_{1};
  bool begins_[256] = {};  // bytes that some pattern begins with
};

}  // namespace longlora::text

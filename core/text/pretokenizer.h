// The pre-tokenizer of a tokenizer.json: cuts a text into the words that byte-pair encoding never joins.
#pragma once
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/text/json_fields.h"
#include "core/text/regex.h"

namespace longlora::text {

class PreTokenizer {
 public:
  // Takes a word; `at_start` when it begins where the whole text begins.
  using Sink = FunctionRef<void(std::string_view word, bool at_start)>;

  class Step {
   public:
    virtual ~Step() = default;
    // `piece` is not empty and valid UTF-8; what goes to `sink` lives only during that call and may be empty.
    virtual void split(std::string_view piece, bool at_start, RegexWorkspace& workspace, Sink sink) const = 0;
  };

  PreTokenizer() = default;  // the whole text is one word
  // Exit 3 naming the part when the file asks for something unknown. null is allowed.
  PreTokenizer(const Json& json, const std::string& where);

  // True when the last step writes bytes as characters (ByteLevel). That step is then left out here: the
  // model works on the bytes themselves.
  [[nodiscard]] bool ends_in_bytes() const { return ends_in_bytes_; }

  void split(std::string_view text, bool at_start, RegexWorkspace& workspace, Sink sink) const {
    run(0, text, at_start, workspace, sink);
  }

 private:
  void read(const Json& json, const std::string& where, bool last);
  void run(size_t step, std::string_view piece, bool at_start, RegexWorkspace& workspace, Sink sink) const;

  std::vector<std::unique_ptr<const Step>> steps_;
  bool ends_in_bytes_ = false;
};

}  // namespace longlora::text

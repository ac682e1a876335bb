// The normalizer of a tokenizer.json: what is done to a text before it is split.
#pragma once
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/text/json_fields.h"
#include "core/text/regex.h"

namespace longlora::text {

class Normalizer {
 public:
  class Step {
   public:
    virtual ~Step() = default;
    virtual void apply(std::string& text, RegexWorkspace& workspace) const = 0;
  };

  Normalizer() = default;  // changes nothing
  // Exit 3 naming the part when the file asks for something unknown. null is allowed.
  Normalizer(const Json& json, const std::string& where);

  [[nodiscard]] bool empty() const { return steps_.empty(); }
  // `text` is valid UTF-8, and so is the result.
  void apply(std::string& text, RegexWorkspace& workspace) const {
    for (const auto& step : steps_) step->apply(text, workspace);
  }

 private:
  void read(const Json& json, const std::string& where);
  std::vector<std::unique_ptr<const Step>> steps_;
};

}  // namespace longlora::text

// The decoder of a tokenizer.json: how tokens become text again. Every step works on a stream, so that
// decoding all at once and decoding while generating are the same code and give the same text.
#pragma once
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/text/json_fields.h"

namespace longlora::text {

class Decoder {
 public:
  // One running decoding: a chain of steps, each of which passes text on to the next.
  class Stage {
   public:
    virtual ~Stage() = default;
    // A token, or (`begins` false) more of the token before.
    virtual void push(std::string_view piece, bool begins) = 0;
    virtual void finish() {
      if (next) next->finish();
    }
    std::unique_ptr<Stage> next;
  };
  // What a step of the file makes a stage with.
  class Step {
   public:
    virtual ~Step() = default;
    [[nodiscard]] virtual std::unique_ptr<Stage> start() const = 0;
    [[nodiscard]] virtual bool fuses() const { return false; }            // makes one token of all
    [[nodiscard]] virtual bool takes_fragments() const { return false; }  // works on part of a token as on the whole
    bool whole = false;  // for a step that fuses: pass the token on only when it is complete
  };

  // Exit 3 naming the part when the file asks for something unknown. null joins tokens with spaces.
  Decoder(const Json& json, const std::string& where);

  // A chain that appends to `out`, which must outlive it.
  [[nodiscard]] std::unique_ptr<Stage> start(std::string* out) const;

 private:
  void read(const Json& json, const std::string& where);
  std::vector<std::unique_ptr<Step>> steps_;
};

}  // namespace longlora::text

// The text that something is hidden in, as a row of sentences without end. Three kinds: the user's files, plain sentences
// of the program's own, and the five sentences of Landmark Attention that LongLoRA's passkey and RULER's noise repeat.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/file.h"

namespace longlora::eval {

inline constexpr std::string_view kNoise =
    "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.";

class Haystack {
 public:
  [[nodiscard]] static Haystack noise();
  [[nodiscard]] static Haystack generated();
  // The first `most_bytes` of the files' documents (core/data/reader.h). Exit 3 for files that are missing, damaged or
  // without text.
  [[nodiscard]] static Haystack files(std::span<const std::string> patterns, size_t most_bytes);
  // "noise", "generated" or files.
  [[nodiscard]] static Haystack named(std::span<const std::string> names, size_t most_bytes);

  // Sentence i with the white space behind it. `stream` numbers texts that differ: generated ones are other sentences, a
  // file is begun at another place (stream 0: at its start) and repeated when it is over.
  [[nodiscard]] std::string sentence(uint64_t stream, int64_t i) const;

  // Tells texts apart: "noise", "generated", or the fingerprint of what was read.
  [[nodiscard]] const std::string& name() const { return name_; }

 private:
  std::string name_;
  std::vector<std::string> sentences_;  // empty: generated
};

// Where sentences end: behind . ! or ?, closing quotes and brackets, and white space; and at blank lines. Together they are
// the text. A stretch of a kilobyte without an end is cut at white space, one without that at a character.
[[nodiscard]] std::vector<std::string> split_sentences(std::string_view text);

// Without white space at the end.
[[nodiscard]] std::string without_trailing_space(std::string text);

}  // namespace longlora::eval

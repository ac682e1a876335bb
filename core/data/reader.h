// Reads documents out of text files, one after the other in constant memory: .txt (a file is a document),
// .jsonl (a line is an object with the field "text"), .json (an array of such objects, or one), each also as
// .zst.
#pragma once
#include <cstdint>
#include <functional>
#include <string>

#include "core/base/file.h"

namespace longlora::data {

enum class InputKind { text, json_lines, json, tokens };

// By the name's ending, .zst taken off; "tokens" is .bin. Exit 3 naming the known kinds for any other.
[[nodiscard]] InputKind input_kind(const fs::path& path);

struct Document {
  std::string text;
  int64_t consumed = 0;  // bytes of the file (compressed ones) read when the document was complete
};

// A document is tokenized whole, so it must fit into memory; a longer one is refused.
inline constexpr size_t kMaxDocumentBytes = size_t{1} << 30;

// Hands every document of `path` to `sink`, in order, until it returns false. Exit 3 with file:line for a
// line that is no JSON, no object or has no string "text", and for damaged .zst data. Blank lines of .jsonl
// are passed over.
void read_documents(const fs::path& path, const std::function<bool(Document&&)>& sink);

}  // namespace longlora::data

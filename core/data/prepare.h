// Text to a token file, on all cores: one thread reads documents, the others tokenize them, the caller's
// writes them in order. Memory is bounded by kBytesInFlight of text (and its tokens) or by the longest
// document, if that is longer.
#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "core/base/file.h"
#include "core/text/tokenizer.h"

namespace longlora::data {

enum class Bos { automatic, yes, no };  // automatic: if the tokenizer adds one

struct PrepareOptions {
  std::vector<fs::path> inputs;  // text files (core/data/reader.h), in this order
  fs::path out;                  // .bin
  Bos bos = Bos::automatic;      // at the start of each document; EOS always ends it
  bool overwrite = false;
  int threads = 0;             // that tokenize; 0: one a core
  std::function<bool()> stop;  // asked after every document; empty: stop_requested()
};

struct PrepareResult {
  bool complete = false;  // false: stopped after saving; the same call goes on from there
  int64_t documents = 0, tokens = 0;
  int64_t empty = 0;  // documents without a single character, left out
};

inline constexpr int64_t kBytesInFlight = int64_t{64} << 20;

// Exit 3 for damaged inputs (nothing is kept then), exit 2 for outputs that exist (core/io/token_writer.h).
PrepareResult prepare(const text::Tokenizer& tokenizer, const PrepareOptions& options);

}  // namespace longlora::data

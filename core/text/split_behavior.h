// What becomes of the delimiters when a text is split: the five behaviours of tokenizer.json, applied while
// the parts stream by.
#pragma once
#include <string>
#include <string_view>

#include "core/base/error.h"
#include "core/text/function_ref.h"

namespace longlora::text {

enum class SplitBehavior { isolated, removed, contiguous, merged_with_previous, merged_with_next };

[[nodiscard]] inline SplitBehavior split_behavior(const std::string& name, const std::string& where) {
  if (name == "Isolated") return SplitBehavior::isolated;
  if (name == "Removed") return SplitBehavior::removed;
  if (name == "Contiguous") return SplitBehavior::contiguous;
  if (name == "MergedWithPrevious") return SplitBehavior::merged_with_previous;
  if (name == "MergedWithNext") return SplitBehavior::merged_with_next;
  input_error("{}: the behavior '{}' is not supported", where, name);
}

// Takes the parts of `text` in order, each with whether it is a delimiter, and gives the pieces to `sink`.
class Splitter {
 public:
  using Sink = FunctionRef<void(std::string_view piece, bool at_start)>;

  Splitter(std::string_view text, bool at_start, SplitBehavior behavior, Sink sink)
      : text_(text), at_start_(at_start), behavior_(behavior), sink_(sink) {}

  void part(size_t begin, size_t end, bool delimiter) {
    switch (behavior_) {
      case SplitBehavior::isolated:
        return give(begin, end);
      case SplitBehavior::removed:
        if (!delimiter) give(begin, end);
        return;
      case SplitBehavior::contiguous:  // neighbours of the same kind become one
        join_or_start(begin, end, held_ && delimiter == last_was_delimiter_);
        break;
      case SplitBehavior::merged_with_previous:  // the first delimiter of a run joins what stands before it
        join_or_start(begin, end, held_ && delimiter && !last_was_delimiter_);
        break;
      case SplitBehavior::merged_with_next:  // the last delimiter of a run joins what stands behind it
        join_or_start(begin, end, held_ && last_was_delimiter_ && !delimiter);
        break;
    }
    last_was_delimiter_ = delimiter;
  }

  void finish() {
    if (held_) give(begin_, end_);
    held_ = false;
  }

 private:
  void join_or_start(size_t begin, size_t end, bool join) {
    if (!join) {
      finish();
      begin_ = begin;
    }
    end_ = end, held_ = true;
  }
  void give(size_t begin, size_t end) const { sink_(text_.substr(begin, end - begin), at_start_ && begin == 0); }

  std::string_view text_;
  bool at_start_;
  SplitBehavior behavior_;
  Sink sink_;
  size_t begin_ = 0, end_ = 0;
  bool held_ = false, last_was_delimiter_ = false;
};

}  // namespace longlora::text

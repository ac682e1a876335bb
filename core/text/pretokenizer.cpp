#include "core/text/pretokenizer.h"

#include "core/base/error.h"
#include "core/text/matcher.h"
#include "core/text/split_behavior.h"
#include "core/text/unicode.h"

namespace longlora::text {

namespace {

using Step = PreTokenizer::Step;
using Sink = PreTokenizer::Sink;

// GPT-2's expression, which ByteLevel carries inside.
constexpr std::string_view kGpt2 = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

// Whitespace's words: \w of UTS #18 (which counts the two joiners and not every number), or anything else but
// space.
constexpr std::string_view kWords =
    R"([\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\x{200c}\x{200d}]+|[^\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\x{200c}\x{200d}\s]+)";

// Split on a literal or an expression; `invert`: what lies between the matches is the delimiter.
class Split final : public Step {
 public:
  Split(Matcher matcher, SplitBehavior behavior, bool invert)
      : matcher_(std::move(matcher)), behavior_(behavior), invert_(invert) {}

  void split(std::string_view piece, bool at_start, RegexWorkspace& workspace, Sink sink) const override {
    Splitter parts(piece, at_start, behavior_, sink);
    size_t done = 0;
    matcher_.for_each(piece, workspace, [&](size_t begin, size_t end) {
      if (begin > done) parts.part(done, begin, invert_);
      parts.part(begin, end, !invert_);
      done = end;
    });
    if (done < piece.size()) parts.part(done, piece.size(), invert_);
    parts.finish();
  }

 private:
  Matcher matcher_;
  SplitBehavior behavior_;
  bool invert_;
};

// Split where a character is of a class.
class SplitCharacters final : public Step {
 public:
  SplitCharacters(bool (*is_delimiter)(char32_t), SplitBehavior behavior)
      : is_delimiter_(is_delimiter), behavior_(behavior) {}

  void split(std::string_view piece, bool at_start, RegexWorkspace&, Sink sink) const override {
    Splitter parts(piece, at_start, behavior_, sink);
    size_t done = 0;
    for (size_t i = 0; i < piece.size();) {
      const size_t next = i + utf8_length(piece[i]);
      if (is_delimiter_(utf8_at(piece, i))) {
        if (i > done) parts.part(done, i, false);
        parts.part(i, next, true);
        done = next;
      }
      i = next;
    }
    if (done < piece.size()) parts.part(done, piece.size(), false);
    parts.finish();
  }

 private:
  bool (*is_delimiter_)(char32_t);
  SplitBehavior behavior_;
};

// A space in front of a piece that has none.
class AddPrefixSpace final : public Step {
 public:
  void split(std::string_view piece, bool at_start, RegexWorkspace&, Sink sink) const override {
    if (piece.front() == ' ') return sink(piece, at_start);
    sink(std::string(" ").append(piece), at_start);
  }
};

// Bytes as characters, where ByteLevel is not the last step.
class BytesToCharacters final : public Step {
 public:
  void split(std::string_view piece, bool at_start, RegexWorkspace&, Sink sink) const override {
    std::string out;
    out.reserve(piece.size() * 2);
    for (const char c : piece) out += byte_characters()[static_cast<unsigned char>(c)];
    sink(out, at_start);
  }
};

class Metaspace final : public Step {
 public:
  enum class Prepend { always, first, never };
  Metaspace(std::string replacement, Prepend prepend, bool split)
      : replacement_(std::move(replacement)), prepend_(prepend), split_(split) {}

  void split(std::string_view piece, bool at_start, RegexWorkspace&, Sink sink) const override {
    std::string text;
    text.reserve(piece.size() * 3 / 2 + replacement_.size());
    const bool has_one = piece.front() == ' ' || piece.starts_with(replacement_);
    if (!has_one && (prepend_ == Prepend::always || (prepend_ == Prepend::first && at_start))) text = replacement_;
    for (const char c : piece) {
      if (c == ' ')
        text += replacement_;
      else
        text += c;
    }
    if (!split_) return sink(text, at_start);
    Splitter parts(text, at_start, SplitBehavior::merged_with_next, sink);
    size_t done = 0;
    for (size_t i = 0; (i = text.find(replacement_, i)) != std::string::npos;) {
      if (i > done) parts.part(done, i, false);
      done = i + replacement_.size();
      parts.part(i, done, true);
      i = done;
    }
    if (done < text.size()) parts.part(done, text.size(), false);
    parts.finish();
  }

 private:
  std::string replacement_;
  Prepend prepend_;
  bool split_;
};

Metaspace::Prepend prepend_of(const Json& json, const std::string& where) {
  const auto scheme = optional_or<std::string>(json, "prepend_scheme", where, "always");
  const bool prefix = optional_or<bool>(json, "add_prefix_space", where, true);
  if (!prefix && json.contains("prepend_scheme") && scheme != "never")
    input_error("{}: 'add_prefix_space' contradicts 'prepend_scheme'", where);
  if (!prefix || scheme == "never") return Metaspace::Prepend::never;
  if (scheme == "always") return Metaspace::Prepend::always;
  if (scheme == "first") return Metaspace::Prepend::first;
  input_error("{}: the prepend_scheme '{}' is not supported", where, scheme);
}

}  // namespace

PreTokenizer::PreTokenizer(const Json& json, const std::string& where) {
  read(json, where, true);
}

void PreTokenizer::read(const Json& json, const std::string& where, bool last) {
  if (json.is_null()) return;
  const std::string type = type_of(json, where);
  const auto split_with = [&](const Pattern& pattern, SplitBehavior behavior, bool invert) {
    steps_.push_back(std::make_unique<Split>(Matcher(pattern, where), behavior, invert));
  };
  if (type == "Sequence") {
    allow_keys(json, where, {"type", "pretokenizers"});
    const auto parts = required<std::vector<Json>>(json, "pretokenizers", where);
    for (size_t i = 0; i < parts.size(); ++i)
      read(parts[i], fmt::format("{}.pretokenizers[{}]", where, i), last && i + 1 == parts.size());
  } else if (type == "ByteLevel") {
    allow_keys(json, where, {"type", "add_prefix_space", "trim_offsets", "use_regex"});
    if (required<bool>(json, "add_prefix_space", where)) steps_.push_back(std::make_unique<AddPrefixSpace>());
    if (optional_or<bool>(json, "use_regex", where, true))
      split_with({true, std::string(kGpt2)}, SplitBehavior::isolated, false);
    if (last)
      ends_in_bytes_ = true;
    else
      steps_.push_back(std::make_unique<BytesToCharacters>());
  } else if (type == "Split") {
    allow_keys(json, where, {"type", "pattern", "behavior", "invert"});
    split_with(pattern_of(json, where), split_behavior(required<std::string>(json, "behavior", where), where),
               required<bool>(json, "invert", where));
  } else if (type == "Metaspace") {
    allow_keys(json, where, {"type", "replacement", "prepend_scheme", "add_prefix_space", "split", "str_rep"});
    steps_.push_back(std::make_unique<Metaspace>(required<std::string>(json, "replacement", where),
                                                 prepend_of(json, where),
                                                 optional_or<bool>(json, "split", where, true)));
  } else if (type == "Digits") {
    allow_keys(json, where, {"type", "individual_digits"});
    steps_.push_back(std::make_unique<SplitCharacters>(is_number, required<bool>(json, "individual_digits", where)
                                                                      ? SplitBehavior::isolated
                                                                      : SplitBehavior::contiguous));
  } else if (type == "Punctuation") {
    allow_keys(json, where, {"type", "behavior"});
    steps_.push_back(std::make_unique<SplitCharacters>(
        is_punctuation, split_behavior(optional_or<std::string>(json, "behavior", where, "Isolated"), where)));
  } else if (type == "WhitespaceSplit") {
    allow_keys(json, where, {"type"});
    steps_.push_back(std::make_unique<SplitCharacters>(is_whitespace, SplitBehavior::removed));
  } else if (type == "Whitespace") {
    allow_keys(json, where, {"type"});
    split_with({true, std::string(kWords)}, SplitBehavior::removed, true);
  } else {
    unsupported_type(type, where);
  }
}

void PreTokenizer::run(size_t step, std::string_view piece, bool at_start, RegexWorkspace& workspace, Sink sink) const {
  if (piece.empty()) return;
  if (step == steps_.size()) return sink(piece, at_start);
  steps_[step]->split(piece, at_start, workspace, [&](std::string_view part, bool part_at_start) {
    run(step + 1, part, part_at_start, workspace, sink);
  });
}

}  // namespace longlora::text

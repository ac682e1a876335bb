#include "core/text/decoder.h"

#include <algorithm>

#include "core/base/error.h"
#include "core/text/matcher.h"
#include "core/text/unicode.h"

namespace longlora::text {

namespace {

using Stage = Decoder::Stage;
using Step = Decoder::Step;

class Collect final : public Stage {
 public:
  explicit Collect(std::string* out) : out_(out) {}
  void push(std::string_view piece, bool) override { *out_ += piece; }

 private:
  std::string* out_;
};

// No decoder at all: tokens with spaces between them.
class JoinStep final : public Step {
  class JoinStage final : public Stage {
    void push(std::string_view piece, bool begins) override {
      if (begins && !first_) next->push(" ", true);
      first_ = false;
      next->push(piece, begins);
    }
    bool first_ = true;
  };
  std::unique_ptr<Stage> start() const override { return std::make_unique<JoinStage>(); }
};

// Characters back to bytes, all tokens joined; what is not UTF-8 becomes U+FFFD.
class ByteLevelStep final : public Step {
  class ByteLevelStage final : public Stage {
   public:
    explicit ByteLevelStage(bool whole) : whole_(whole) {}
    void push(std::string_view piece, bool) override {
      if (const auto bytes = bytes_of_token(piece))
        held_ += *bytes;
      else
        held_ += piece;
      if (!whole_) give(incomplete_tail(held_));
    }
    void finish() override {
      give(0);
      next->finish();
    }

   private:
    void give(size_t keep) {
      std::string text;
      append_valid_utf8(text, std::string_view(held_).substr(0, held_.size() - keep));
      held_.erase(0, held_.size() - keep);
      if (text.empty()) return;
      next->push(text, first_);
      first_ = false;
    }
    bool whole_, first_ = true;
    std::string held_;
  };
  std::unique_ptr<Stage> start() const override { return std::make_unique<ByteLevelStage>(whole); }
  bool fuses() const override { return true; }
};

class FuseStep final : public Step {
  class FuseStage final : public Stage {
   public:
    explicit FuseStage(bool whole) : whole_(whole) {}
    void push(std::string_view piece, bool) override {
      if (whole_) {
        held_ += piece;
        return;
      }
      next->push(piece, first_);
      first_ = false;
    }
    void finish() override {
      if (whole_) next->push(held_, true);
      next->finish();
    }

   private:
    bool whole_, first_ = true;
    std::string held_;
  };
  std::unique_ptr<Stage> start() const override { return std::make_unique<FuseStage>(whole); }
  bool fuses() const override { return true; }
};

// Tokens <0xHH> to bytes: a run of them is text when it is valid UTF-8 as a whole, otherwise a U+FFFD for
// each.
class ByteFallbackStep final : public Step {
  class ByteFallbackStage final : public Stage {
    void push(std::string_view piece, bool) override {
      if (const auto byte = byte_of(piece)) {
        run_ += static_cast<char>(*byte);
        return;
      }
      end_run();
      next->push(piece, true);
    }
    void finish() override {
      end_run();
      next->finish();
    }
    static std::optional<uint8_t> byte_of(std::string_view token) {
      if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return std::nullopt;
      const auto digit = [](char c) {
        if (c >= '0' && c <= '9') return c - '0';
        const int letter = c | 0x20;
        return letter >= 'a' && letter <= 'f' ? letter - 'a' + 10 : -1;
      };
      if (digit(token[3]) < 0 || digit(token[4]) < 0) return std::nullopt;
      return static_cast<uint8_t>(digit(token[3]) * 16 + digit(token[4]));
    }
    void end_run() {
      if (run_.empty()) return;
      if (is_valid_utf8(run_))
        next->push(run_, true);
      else
        for (size_t i = 0; i < run_.size(); ++i) next->push(kReplacement, true);
      run_.clear();
    }
    std::string run_;
  };
  std::unique_ptr<Stage> start() const override { return std::make_unique<ByteFallbackStage>(); }
};

class ReplaceStep final : public Step {
 public:
  ReplaceStep(const Pattern& pattern, std::string by, const std::string& where)
      : one_character_(!pattern.is_regex && !pattern.text.empty() &&
                       utf8_length(pattern.text[0]) == pattern.text.size()),
        what_(pattern, where),
        by_(std::move(by)) {}

 private:
  class ReplaceStage final : public Stage {
   public:
    explicit ReplaceStage(const ReplaceStep& step) : step_(step) {}
    void push(std::string_view piece, bool begins) override {
      next->push(step_.what_.replace(piece, step_.by_, workspace_), begins);
    }

   private:
    const ReplaceStep& step_;
    RegexWorkspace workspace_;
  };
  std::unique_ptr<Stage> start() const override { return std::make_unique<ReplaceStage>(*this); }
  bool takes_fragments() const override { return one_character_; }

  bool one_character_;
  Matcher what_;
  std::string by_;
};

// Takes up to `start` and `stop` times the character off the ends of each token.
class StripStep final : public Step {
 public:
  StripStep(std::string character, size_t start, size_t stop)
      : character_(std::move(character)), start_(start), stop_(stop) {}

 private:
  class StripStage final : public Stage {
   public:
    explicit StripStage(const StripStep& step) : step_(step) {}
    void push(std::string_view piece, bool begins) override {
      if (begins) left_ = step_.start_;
      while (left_ > 0 && !piece.empty()) {
        if (!piece.starts_with(step_.character_)) left_ = 0;
        if (left_ > 0) piece.remove_prefix(step_.character_.size()), --left_;
      }
      for (size_t i = 0; i < step_.stop_ && piece.ends_with(step_.character_); ++i)
        piece.remove_suffix(step_.character_.size());
      next->push(piece, begins);
    }

   private:
    const StripStep& step_;
    size_t left_ = 0;
  };
  std::unique_ptr<Stage> start() const override { return std::make_unique<StripStage>(*this); }
  bool takes_fragments() const override { return stop_ == 0; }

  std::string character_;
  size_t start_, stop_;
};

// The replacement character is a space, but nothing at all in the first token.
class MetaspaceStep final : public Step {
 public:
  MetaspaceStep(std::string replacement, bool drops_first)
      : replacement_(std::move(replacement)), drops_first_(drops_first) {}

 private:
  class MetaspaceStage final : public Stage {
   public:
    explicit MetaspaceStage(const MetaspaceStep& step) : step_(step) {}
    void push(std::string_view piece, bool begins) override {
      std::string text;
      for (size_t i = 0; i < piece.size();) {
        if (piece.substr(i).starts_with(step_.replacement_)) {
          if (!first_ || !step_.drops_first_) text += ' ';
          i += step_.replacement_.size();
        } else {
          text += piece[i++];
        }
      }
      first_ = false;
      next->push(text, begins);
    }

   private:
    const MetaspaceStep& step_;
    bool first_ = true;
  };
  std::unique_ptr<Stage> start() const override { return std::make_unique<MetaspaceStage>(*this); }

  std::string replacement_;
  bool drops_first_;
};

}  // namespace

Decoder::Decoder(const Json& json, const std::string& where) {
  read(json, where);
  if (json.is_null()) steps_.push_back(std::make_unique<JoinStep>());
  // A fused token is passed on piece by piece only to steps that can work so.
  for (size_t i = 0; i < steps_.size(); ++i)
    steps_[i]->whole = steps_[i]->fuses() && !std::all_of(steps_.begin() + static_cast<ptrdiff_t>(i) + 1, steps_.end(),
                                                          [](const auto& step) { return step->takes_fragments(); });
}

void Decoder::read(const Json& json, const std::string& where) {
  if (json.is_null()) return;
  const std::string type = type_of(json, where);
  if (type == "Sequence") {
    allow_keys(json, where, {"type", "decoders"});
    const auto parts = required<std::vector<Json>>(json, "decoders", where);
    for (size_t i = 0; i < parts.size(); ++i) read(parts[i], fmt::format("{}.decoders[{}]", where, i));
  } else if (type == "ByteLevel") {
    allow_keys(json, where, {"type", "add_prefix_space", "trim_offsets", "use_regex"});
    steps_.push_back(std::make_unique<ByteLevelStep>());
  } else if (type == "Fuse") {
    allow_keys(json, where, {"type"});
    steps_.push_back(std::make_unique<FuseStep>());
  } else if (type == "ByteFallback") {
    allow_keys(json, where, {"type"});
    steps_.push_back(std::make_unique<ByteFallbackStep>());
  } else if (type == "Replace") {
    allow_keys(json, where, {"type", "pattern", "content"});
    steps_.push_back(
        std::make_unique<ReplaceStep>(pattern_of(json, where), required<std::string>(json, "content", where), where));
  } else if (type == "Strip") {
    allow_keys(json, where, {"type", "content", "start", "stop"});
    steps_.push_back(std::make_unique<StripStep>(required<std::string>(json, "content", where),
                                                 required<size_t>(json, "start", where),
                                                 required<size_t>(json, "stop", where)));
  } else if (type == "Metaspace") {
    allow_keys(json, where, {"type", "replacement", "prepend_scheme", "add_prefix_space", "split", "str_rep"});
    const bool never = optional_or<std::string>(json, "prepend_scheme", where, "always") == "never" ||
                       !optional_or<bool>(json, "add_prefix_space", where, true);
    steps_.push_back(std::make_unique<MetaspaceStep>(required<std::string>(json, "replacement", where), !never));
  } else {
    unsupported_type(type, where);
  }
}

std::unique_ptr<Decoder::Stage> Decoder::start(std::string* out) const {
  std::unique_ptr<Stage> chain = std::make_unique<Collect>(out);
  for (size_t i = steps_.size(); i-- > 0;) {
    std::unique_ptr<Stage> stage = steps_[i]->start();
    stage->next = std::move(chain);
    chain = std::move(stage);
  }
  return chain;
}

}  // namespace longlora::text

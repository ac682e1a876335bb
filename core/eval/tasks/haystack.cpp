#include "core/eval/tasks/haystack.h"

#include <fmt/format.h>
#include <array>

#include "core/base/error.h"
#include "core/base/hash.h"
#include "core/base/random.h"
#include "core/data/glob.h"
#include "core/data/reader.h"

namespace longlora::eval {
namespace {

constexpr size_t kLongSentence = 1024;

bool is_space(char c) {
  return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

// Plain sentences: somebody did something to something, somewhere, at some time. 32^5 of each of three forms.
using Words = std::array<const char*, 32>;
constexpr Words kWho = {"farmer", "teacher", "sailor",   "baker",   "miller",  "doctor",    "painter",   "gardener",
                        "clerk",  "hunter",  "tailor",   "captain", "student", "neighbor",  "carpenter", "shepherd",
                        "guard",  "porter",  "weaver",   "singer",  "driver",  "librarian", "merchant",  "traveler",
                        "cook",   "fisher",  "mechanic", "nurse",   "potter",  "scholar",   "smith",     "visitor"};
constexpr Words kHow = {"old",     "young",  "tired",    "cheerful",   "quiet",  "careful", "curious",  "patient",
                        "tall",    "busy",   "polite",   "clever",     "sleepy", "honest",  "proud",    "gentle",
                        "serious", "lonely", "brave",    "nervous",    "famous", "hungry",  "strict",   "generous",
                        "modest",  "lively", "stubborn", "thoughtful", "clumsy", "calm",    "grateful", "wealthy"};
constexpr Words kDid = {"carried",  "painted", "repaired", "found",     "sold",      "bought",  "cleaned",
                        "measured", "hid",     "moved",    "washed",    "described", "drew",    "borrowed",
                        "opened",   "counted", "lifted",   "kept",      "lost",      "admired", "examined",
                        "built",    "wrapped", "broke",    "dropped",   "returned",  "watched", "covered",
                        "polished", "weighed", "guarded",  "remembered"};
constexpr Words kWhat = {"basket", "wooden gate", "lantern",  "letter",     "clock",  "cart",     "kettle", "blanket",
                         "ladder", "iron pot",    "map",      "bucket",     "mirror", "window",   "saddle", "bell",
                         "chair",  "bottle",      "rope",     "small boat", "coat",   "drum",     "barrel", "candle",
                         "bridge", "stone wall",  "notebook", "umbrella",   "wheel",  "cupboard", "net",    "table"};
constexpr Words kWhere = {"near the river",      "behind the barn",  "in the village",     "at the market",
                          "on the hill",         "by the old mill",  "in the garden",      "under the bridge",
                          "beside the road",     "at the harbor",    "in the kitchen",     "outside the school",
                          "along the coast",     "in the valley",    "at the station",     "near the forest",
                          "in front of the inn", "on the pier",      "across the square",  "in the courtyard",
                          "at the crossing",     "by the lake",      "in the workshop",    "on the farm",
                          "near the chapel",     "in the long hall", "beside the well",    "at the town gate",
                          "in the orchard",      "on the balcony",   "behind the theater", "by the fountain"};
constexpr Words kWhen = {"before noon",        "in the evening",     "after the rain",     "during the winter",
                         "last spring",        "on a cold morning",  "at sunset",          "while it snowed",
                         "early in the week",  "after lunch",        "before the feast",   "in late summer",
                         "on the first day",   "when the wind fell", "for the third time", "without a word",
                         "as the bells rang",  "late at night",      "during the harvest", "after a long walk",
                         "at the usual hour",  "before breakfast",   "in the afternoon",   "once more",
                         "with great care",    "in a hurry",         "for a friend",       "on a holiday",
                         "when nobody looked", "under a gray sky",   "at the last moment", "that autumn"};

std::string made_sentence(uint64_t stream, int64_t i) {
  SplitMix random(derive_seed(stream, {0x5e17, static_cast<uint64_t>(i)}));
  const auto pick = [&](const Words& words) { return words[random.below(words.size())]; };
  const char *how = pick(kHow), *who = pick(kWho), *did = pick(kDid), *what = pick(kWhat), *where = pick(kWhere),
             *when = pick(kWhen);
  const char* end = random.below(6) == 0 ? "\n\n" : " ";  // paragraphs of six sentences or so
  switch (random.below(3)) {
    case 0:
      return fmt::format("The {} {} {} the {} {}.{}", how, who, did, what, where, end);
    case 1:
      return fmt::format("The {} {} the {} {} {}.{}", who, did, what, where, when, end);
    default:
      return fmt::format("A {} {} {} a {} {}.{}", how, who, did, what, when, end);
  }
}

}  // namespace

std::vector<std::string> split_sentences(std::string_view text) {
  std::vector<std::string> sentences;
  size_t begin = 0, at = 0;
  const auto close = [&](size_t end) {
    if (end > begin) sentences.emplace_back(text.substr(begin, end - begin));
    begin = at = end;
  };
  const auto after_space = [&](size_t i) {
    while (i < text.size() && is_space(text[i])) ++i;
    return i;
  };
  while (at < text.size()) {
    const char c = text[at++];
    if (c == '.' || c == '!' || c == '?') {
      while (at < text.size() && std::string_view("\"')]").find(text[at]) != std::string_view::npos) ++at;
      if (at < text.size() && is_space(text[at])) close(after_space(at));
    } else if (c == '\n' && at < text.size() && text[at] == '\n') {
      close(after_space(at));
    } else if (at - begin >= kLongSentence && is_space(c)) {
      close(after_space(at));
    } else if (at - begin >= 2 * kLongSentence && at < text.size() &&
               (static_cast<unsigned char>(text[at]) & 0xC0) != 0x80) {
      close(at);
    }
  }
  close(text.size());
  return sentences;
}

std::string without_trailing_space(std::string text) {
  while (!text.empty() && is_space(text.back())) text.pop_back();
  return text;
}

Haystack Haystack::noise() {
  Haystack haystack;
  haystack.name_ = "noise";
  haystack.sentences_ = split_sentences(std::string(kNoise) + " ");
  return haystack;
}

Haystack Haystack::generated() {
  Haystack haystack;
  haystack.name_ = "generated";
  return haystack;
}

Haystack Haystack::files(std::span<const std::string> patterns, size_t most_bytes) {
  std::string text;
  for (const fs::path& path : data::expand(patterns)) {
    data::read_documents(path, [&](data::Document&& document) {
      text += document.text;
      if (!text.empty() && !is_space(text.back())) text += "\n\n";
      return text.size() < most_bytes;
    });
    if (text.size() >= most_bytes) break;
  }
  if (text.size() > most_bytes) {
    size_t end = most_bytes;
    while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
    text.resize(end);
  }
  Haystack haystack;
  haystack.name_ = fingerprint(text);
  haystack.sentences_ = split_sentences(text);
  if (haystack.sentences_.empty() || without_trailing_space(text).empty()) {
    input_error("--haystack {}: has no text", patterns.front());
  }
  return haystack;
}

Haystack Haystack::named(std::span<const std::string> names, size_t most_bytes) {
  if (names.size() == 1 && names.front() == "noise") return noise();
  if (names.size() == 1 && names.front() == "generated") return generated();
  return files(names, most_bytes);
}

std::string Haystack::sentence(uint64_t stream, int64_t i) const {
  if (sentences_.empty()) return made_sentence(stream, i);
  const uint64_t n = sentences_.size();
  const uint64_t start = stream == 0 || name_ == "noise" ? 0 : SplitMix(stream).below(n);
  return sentences_[(start + static_cast<uint64_t>(i)) % n];
}

}  // namespace longlora::eval

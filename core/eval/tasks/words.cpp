#include "core/eval/tasks/words.h"

#include <fmt/format.h>
#include <array>
#include <unordered_set>

namespace longlora::eval {
namespace {

constexpr std::array<const char*, 96> kAdjectives = {
    "able",   "ample", "ancient", "bold",   "brave",   "brief",  "bright", "brisk",  "broad",   "calm",  "careful",
    "cheap",  "clean", "clever",  "close",  "cold",    "common", "cool",   "crisp",  "curious", "damp",  "dark",
    "deep",   "dense", "dry",     "dusty",  "eager",   "early",  "easy",   "empty",  "exact",   "faint", "fair",
    "famous", "fancy", "fast",    "firm",   "flat",    "fresh",  "gentle", "glad",   "golden",  "grand", "grave",
    "green",  "happy", "hard",    "heavy",  "hollow",  "honest", "humble", "icy",    "idle",    "keen",  "kind",
    "large",  "late",  "light",   "little", "lively",  "lonely", "loud",   "lucky",  "mellow",  "mild",  "modest",
    "narrow", "neat",  "noble",   "odd",    "pale",    "plain",  "polite", "proud",  "quick",   "quiet", "rapid",
    "rare",   "rich",  "rough",   "round",  "rural",   "sharp",  "silent", "simple", "slow",    "small", "smooth",
    "solid",  "spare", "steady",  "steep",  "strange", "sturdy", "tall",   "warm"};
constexpr std::array<const char*, 128> kNouns = {
    "anchor", "apple",   "arrow",   "attic",   "badge",   "barn",    "basin",   "basket",  "beacon",   "bell",
    "bench",  "blanket", "boat",    "bottle",  "branch",  "brick",   "bridge",  "broom",   "bucket",   "butter",
    "button", "cabin",   "cable",   "camera",  "candle",  "canoe",   "canyon",  "carpet",  "castle",   "cedar",
    "cellar", "chair",   "chapel",  "cherry",  "chimney", "circle",  "cliff",   "clock",   "cloud",    "coast",
    "comet",  "copper",  "corner",  "cotton",  "cradle",  "cricket", "curtain", "desert",  "dolphin",  "drawer",
    "eagle",  "engine",  "falcon",  "feather", "fence",   "ferry",   "field",   "flute",   "forest",   "fountain",
    "garden", "glacier", "glove",   "granite", "hammer",  "harbor",  "harvest", "hedge",   "helmet",   "hill",
    "island", "jacket",  "jungle",  "kettle",  "kitchen", "ladder",  "lagoon",  "lantern", "lemon",    "letter",
    "lion",   "magnet",  "maple",   "marble",  "market",  "meadow",  "mirror",  "monsoon", "mountain", "museum",
    "needle", "nest",    "oak",     "ocean",   "orchard", "otter",   "paddle",  "palace",  "parrot",   "pebble",
    "pencil", "pepper",  "piano",   "pillow",  "planet",  "pocket",  "prairie", "puzzle",  "quarry",   "rabbit",
    "ribbon", "river",   "rocket",  "saddle",  "sailor",  "salmon",  "shadow",  "silver",  "spoon",    "station",
    "summit", "temple",  "thunder", "timber",  "tunnel",  "valley",  "violin",  "walnut"};

}  // namespace

std::string word_pair(int64_t i) {
  const auto at = static_cast<size_t>(i);
  return fmt::format("{}-{}", kAdjectives.at(at / kNouns.size()), kNouns[at % kNouns.size()]);
}

std::string plain_word(int64_t i) {
  auto at = static_cast<size_t>(i);
  if (at < kAdjectives.size()) return kAdjectives[at];
  at -= kAdjectives.size();
  if (at < kNouns.size()) return kNouns[at];
  at -= kNouns.size();
  return std::string(kAdjectives.at(at / kNouns.size())) + kNouns[at % kNouns.size()];
}

std::vector<int64_t> sample(SplitMix& random, int64_t n, int64_t count) {
  std::vector<int64_t> chosen;
  std::unordered_set<int64_t> taken;
  // Floyd's algorithm, then in random order.
  for (int64_t i = n - count; i < n; ++i) {
    const auto value = static_cast<int64_t>(random.below(static_cast<uint64_t>(i) + 1));
    chosen.push_back(taken.insert(value).second ? value : i);
    taken.insert(chosen.back());
  }
  shuffle(chosen, random);
  return chosen;
}

std::string random_number(SplitMix& random, int digits) {
  uint64_t low = 1;
  for (int i = 1; i < digits; ++i) low *= 10;
  return std::to_string(low + random.below(9 * low));
}

std::string random_letters(SplitMix& random, int count, char first) {
  std::string text;
  for (int i = 0; i < count; ++i) text += static_cast<char>(first + static_cast<char>(random.below(26)));
  return text;
}

std::string random_uuid(SplitMix& random) {
  const uint64_t high = (random() & ~0xF000ULL) | 0x4000ULL;
  const uint64_t low = (random() & ~(3ULL << 62)) | (1ULL << 63);
  return fmt::format("{:08x}-{:04x}-{:04x}-{:04x}-{:012x}", high >> 32, (high >> 16) & 0xFFFF, high & 0xFFFF, low >> 48,
                     low & 0xFFFFFFFFFFFFULL);
}

}  // namespace longlora::eval

#include "core/io/token_file.h"

#include <algorithm>
#include <bit>
#include <functional>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/hash.h"

namespace longlora::io {
namespace {

static_assert(std::endian::native == std::endian::little, "token files are little-endian and mapped as they are");

template <class Id>
std::span<const Id> ids(const MappedFile& map) {
  return {reinterpret_cast<const Id*>(map.bytes().data()), map.bytes().size() / sizeof(Id)};
}

// Index of the first id that is `vocab` or more, -1 when there is none.
template <class Id>
int64_t first_beyond(std::span<const Id> all, int64_t vocab) {
  constexpr size_t kBlock = 65536;
  for (size_t begin = 0; begin < all.size(); begin += kBlock) {
    const auto block = all.subspan(begin, std::min(kBlock, all.size() - begin));
    Id highest = 0;
    for (const Id id : block) highest = std::max(highest, id);
    if (static_cast<int64_t>(highest) < vocab) continue;
    const auto at = std::find_if(block.begin(), block.end(), [&](Id id) { return static_cast<int64_t>(id) >= vocab; });
    return static_cast<int64_t>(begin) + (at - block.begin());
  }
  return -1;
}

}  // namespace

fs::path token_index_path(const fs::path& bin) {
  return fs::path(bin).replace_extension(".idx.json");
}

TokenFile::TokenFile(const fs::path& bin) : path_(bin), map_(bin) {
  const fs::path index = token_index_path(bin);
  indexed_ = fs::exists(index);
  if (indexed_) read_index(index);
  const auto bytes = static_cast<int64_t>(map_.bytes().size());
  if (bytes % token_bytes(type_) != 0) {
    input_error("{}: {} bytes are no whole number of {} tokens; the file is damaged or no token file", bin.string(),
                bytes, token_type_name(type_));
  }
  if (indexed_ && tokens_ * token_bytes(type_) != bytes) {
    input_error("{}: has {} bytes, but {} speaks of {} {} tokens; run 'longlora prepare' again", bin.string(), bytes,
                index.string(), tokens_, token_type_name(type_));
  }
  tokens_ = bytes / token_bytes(type_);
  if (tokens_ == 0) input_error("{}: holds no tokens", bin.string());
  if (!indexed_) documents_ = {0, tokens_};
}

void TokenFile::read_index(const fs::path& index) {
  auto damaged = [&](const std::string& what) {
    input_error("{}: damaged index: {}; run 'longlora prepare' again", index.string(), what);
  };
  try {
    const auto json = nlohmann::json::parse(read_file(index));
    if (json.at("format") != "longlora-tokens" || json.at("version") != 1) damaged("unknown format or version");
    const auto dtype = json.at("dtype").get<std::string>();
    if (dtype != "uint16" && dtype != "uint32") damaged("unknown dtype '" + dtype + "'");
    type_ = dtype == "uint16" ? TokenType::uint16 : TokenType::uint32;
    tokens_ = json.at("tokens").get<int64_t>();
    tokenizer_ = json.at("tokenizer").get<std::string>();
    documents_ = json.at("documents").get<std::vector<int64_t>>();
  } catch (const nlohmann::json::exception& error) {
    damaged(error.what());
  }
  const auto bytes = static_cast<int64_t>(map_.bytes().size());
  if (tokens_ < 0 || tokens_ > bytes) damaged(fmt::format("{} tokens in a file of {} bytes", tokens_, bytes));
  documents_.push_back(tokens_);
  const bool rising =
      std::adjacent_find(documents_.begin(), documents_.end(), std::greater_equal<>()) == documents_.end();
  if (documents_.front() != 0 || !rising) damaged("the documents' offsets don't rise from 0 to the number of tokens");
}

void TokenFile::copy(int64_t begin, std::span<int32_t> out) const {
  const auto first = static_cast<size_t>(begin);
  if (type_ == TokenType::uint16) {
    std::ranges::copy(ids<uint16_t>(map_).subspan(first, out.size()), out.begin());
  } else {
    std::ranges::transform(ids<uint32_t>(map_).subspan(first, out.size()), out.begin(),
                           [](uint32_t id) { return static_cast<int32_t>(id); });
  }
}

void TokenFile::check_vocabulary(int64_t vocab) const {
  const bool narrow = type_ == TokenType::uint16;
  if (narrow && vocab > 65535) return;
  const int64_t at = narrow ? first_beyond(ids<uint16_t>(map_), vocab) : first_beyond(ids<uint32_t>(map_), vocab);
  if (at < 0) return;
  const int64_t id =
      narrow ? ids<uint16_t>(map_)[static_cast<size_t>(at)] : ids<uint32_t>(map_)[static_cast<size_t>(at)];
  input_error(
      "{}: token {} at offset {} (byte {}) is outside the model's vocabulary of {}; was the file made with "
      "another tokenizer?",
      path_.string(), id, at, at * token_bytes(type_), vocab);
}

void TokenFile::check_tokenizer(const std::string& fingerprint) const {
  if (!indexed_ || tokenizer_ == fingerprint) return;
  input_error(
      "{}: was made with the tokenizer {}, the model's is {}; run 'longlora prepare' with the model's "
      "tokenizer",
      path_.string(), tokenizer_, fingerprint);
}

std::string TokenFile::fingerprint() const {
  const auto bytes = map_.bytes();
  const size_t edge = std::min<size_t>(bytes.size(), 65536);
  const std::string_view all(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  const std::string_view starts(reinterpret_cast<const char*>(documents_.data()), documents_.size() * sizeof(int64_t));
  return longlora::fingerprint(fmt::format("{} {} {} {} {}", token_type_name(type_), tokens_,
                                           longlora::fingerprint(starts), longlora::fingerprint(all.substr(0, edge)),
                                           longlora::fingerprint(all.substr(all.size() - edge))));
}

}  // namespace longlora::io

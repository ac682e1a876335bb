#include "core/data/loader.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/hash.h"
#include "core/base/random.h"
#include "core/data/permutation.h"

namespace longlora::data {
namespace {

constexpr uint64_t kShuffleStream = 0x5f5206d1f8a7c3e9;  // keeps this use of the run's seed apart from others

// `cursor`, `by` rows further on, in epochs of `rows`.
Cursor advance(Cursor cursor, int64_t by, int64_t rows) {
  cursor.row += by;
  cursor.epoch += cursor.row / rows;
  cursor.row %= rows;
  return cursor;
}

}  // namespace

Loader::Loader(std::shared_ptr<const Rows> rows, uint64_t seed, bool shuffle)
    : rows_(std::move(rows)), seed_(seed), shuffle_(shuffle) {}

std::vector<int64_t> Loader::peek(int64_t sequences) const {
  const int64_t count = rows_->count();
  std::vector<int64_t> chosen;
  chosen.reserve(static_cast<size_t>(sequences));
  for (int64_t i = 0; i < sequences; ++i) {
    const Cursor at = advance(cursor_, i, count);
    const Permutation order(static_cast<uint64_t>(count),
                            derive_seed(seed_, {kShuffleStream, static_cast<uint64_t>(at.epoch)}));
    chosen.push_back(shuffle_ ? static_cast<int64_t>(order(static_cast<uint64_t>(at.row))) : at.row);
  }
  return chosen;
}

std::vector<Batch> Loader::next_step(int64_t sequences, int64_t micro) {
  return next_step(sequences, micro, 0, sequences);
}

std::vector<Batch> Loader::next_step(int64_t sequences, int64_t micro, int64_t first, int64_t last) {
  const std::vector<int64_t> all = peek(sequences);
  const auto chosen = std::span(all).subspan(static_cast<size_t>(first), static_cast<size_t>(last - first));
  std::vector<Batch> batches;
  for (size_t begin = 0; begin < chosen.size(); begin += static_cast<size_t>(micro)) {
    const size_t size = std::min(static_cast<size_t>(micro), chosen.size() - begin);
    batches.push_back(rows_->batch(chosen.subspan(begin, size)));
  }
  cursor_ = advance(cursor_, sequences, rows_->count());
  return batches;
}

std::string Loader::fingerprint() const {
  return longlora::fingerprint(fmt::format("{} {} {}", rows_->fingerprint(), seed_, shuffle_));
}

nlohmann::json Loader::save() const {
  return {{"epoch", cursor_.epoch}, {"row", cursor_.row}, {"data", fingerprint()}};
}

void Loader::restore(const nlohmann::json& saved) {
  Cursor cursor;
  std::string data;
  try {
    cursor = {saved.at("epoch").get<int64_t>(), saved.at("row").get<int64_t>()};
    data = saved.at("data").get<std::string>();
  } catch (const nlohmann::json::exception& error) {
    input_error("the checkpoint's place in the data is damaged: {}", error.what());
  }
  if (data != fingerprint()) {
    usage_error(
        "the training data have changed since the checkpoint (files, tokenizer, context.length, data.packing, "
        "data.shuffle or seed); a resumed run goes on with the same data");
  }
  if (cursor.epoch < 0 || cursor.row < 0 || cursor.row >= rows_->count()) {
    input_error("the checkpoint's place in the data is damaged: row {} of {}", cursor.row, rows_->count());
  }
  cursor_ = cursor;
}

}  // namespace longlora::data

// Hands out the training rows step by step: shuffled anew for every epoch, epochs without end, from any
// place.
#pragma once
#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <vector>

#include "core/data/batch.h"
#include "core/data/rows.h"

namespace longlora::data {

// The next row that is to be handed out.
struct Cursor {
  int64_t epoch = 0;
  int64_t row = 0;  // place in the epoch's order, below the rows of an epoch
  bool operator==(const Cursor&) const = default;
};

class Loader {
 public:
  Loader(std::shared_ptr<const Rows> rows, uint64_t seed, bool shuffle);

  // The next `sequences` rows as batches of `micro` rows (the last one smaller where it does not divide): the
  // same rows in the same order whatever `micro` is.
  [[nodiscard]] std::vector<Batch> next_step(int64_t sequences, int64_t micro);
  // Of those rows only [first, last), one rank's; the cursor goes on as for all.
  [[nodiscard]] std::vector<Batch> next_step(int64_t sequences, int64_t micro, int64_t first, int64_t last);
  // The numbers of those rows, without reading them or going on.
  [[nodiscard]] std::vector<int64_t> peek(int64_t sequences) const;

  [[nodiscard]] const Cursor& cursor() const { return cursor_; }
  // {"epoch": e, "row": r, "data": fingerprint}
  [[nodiscard]] nlohmann::json save() const;
  // Goes on where save() was called. Exit 2 when the data, their packing, the seed or shuffling are not the
  // same; exit 3 when the value is damaged.
  void restore(const nlohmann::json& saved);

 private:
  [[nodiscard]] std::string fingerprint() const;

  std::shared_ptr<const Rows> rows_;
  uint64_t seed_;
  bool shuffle_;
  Cursor cursor_;
};

}  // namespace longlora::data

// The rows of tokens of a golden model as a batch: one document a row, every next token a target.
#pragma once
#include "core/data/batch.h"

namespace longlora::test {

inline data::Batch golden_batch(const std::vector<std::vector<int32_t>>& rows) {
  const auto length = static_cast<int64_t>(rows.front().size());
  data::Batch batch{.rows = static_cast<int64_t>(rows.size()),
                    .length = length,
                    .tokens = {},
                    .targets = {},
                    .positions = {},
                    .documents = {0}};
  for (const auto& row : rows) {
    for (int64_t i = 0; i < length; ++i) {
      batch.tokens.push_back(row[i]);
      batch.targets.push_back(i + 1 < length ? row[i + 1] : data::kIgnore);
      batch.positions.push_back(static_cast<int32_t>(i));
    }
    batch.documents.push_back(static_cast<int64_t>(batch.tokens.size()));
  }
  return batch;
}

}  // namespace longlora::test

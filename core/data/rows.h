// The rows of an epoch, any of them at hand by its number.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/data/batch.h"
#include "core/data/packing.h"
#include "core/data/token_source.h"

namespace longlora::data {

// stream     all documents joined and cut: row i holds tokens [i L, (i+1) L), its targets are the tokens one
// further
//            on (the last one is the next row's first); a row is one document. An incomplete last row is
//            dropped.
// documents  whole documents packed into rows (core/data/packing.h), each with positions of its own; a
// document's last
//            token has no target, nor has one whose next token is not learned; the unused end of a row is a document of its own without targets.
enum class Packing { stream, documents };

// What becomes of the tokens; said before training.
struct RowsReport {
  int64_t documents = 0, tokens = 0;
  int64_t rows = 0, length = 0;
  int64_t dropped = 0;  // tokens that are in no row, neither as input nor as target
  int64_t padding = 0;  // places of rows that hold no token

  // "1204 documents, 52.1M tokens, 6356 rows of 8192 tokens an epoch, 0.2% padding, 812 tokens dropped"
  [[nodiscard]] std::string line() const;
};

class Rows {
 public:
  // `pad`: the id in the unused end of a row. `name`: what the recipe calls the data. Exit 3 with the numbers
  // when there is not one row.
  Rows(std::shared_ptr<const TokenSource> source, Packing packing, int64_t length, int32_t pad,
       const std::string& name = "data.train");

  [[nodiscard]] int64_t count() const { return report_.rows; }
  [[nodiscard]] const RowsReport& report() const { return report_; }
  // These rows, in this order.
  [[nodiscard]] Batch batch(std::span<const int64_t> rows) const;
  // For validation: `limit` rows spread evenly over all of them (0 or more than there are: all), in order,
  // `micro` a batch.
  [[nodiscard]] std::vector<Batch> all_rows(int64_t limit, int64_t micro) const;
  // Changes whenever a row could.
  [[nodiscard]] std::string fingerprint() const;

 private:
  void add_stream_row(int64_t row, Batch& batch) const;
  void add_packed_row(int64_t row, Batch& batch) const;

  std::shared_ptr<const TokenSource> source_;
  Packing packing_;
  int32_t pad_;
  PackedRows packed_;  // Packing::documents
  RowsReport report_;
};

}  // namespace longlora::data

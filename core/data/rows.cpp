#include "core/data/rows.h"

#include <algorithm>
#include <numeric>

#include "core/base/error.h"
#include "core/base/hash.h"
#include "core/base/progress.h"

namespace longlora::data {
namespace {

// Appends a document's positions and its boundary.
void add_document(int64_t size, Batch& batch) {
  const size_t at = batch.positions.size();
  batch.positions.resize(at + static_cast<size_t>(size));
  std::iota(batch.positions.begin() + static_cast<std::ptrdiff_t>(at), batch.positions.end(), 0);
  batch.documents.push_back(batch.documents.back() + size);
}

}  // namespace

std::string RowsReport::line() const {
  std::string text = fmt::format("{} documents, {} tokens, {} rows of {} tokens an epoch", documents,
                                 format_count(static_cast<double>(tokens)), rows, length);
  if (padding > 0) {
    text += fmt::format(", {:.1f}% padding", 100.0 * static_cast<double>(padding) / static_cast<double>(rows * length));
  }
  if (dropped > 0) text += fmt::format(", {} tokens dropped", dropped);
  return text;
}

Rows::Rows(std::shared_ptr<const TokenSource> source, Packing packing, int64_t length, int32_t pad,
           const std::string& name)
    : source_(std::move(source)), packing_(packing), pad_(pad) {
  report_.documents = static_cast<int64_t>(source_->documents().size()) - 1;
  report_.tokens = source_->tokens();
  report_.length = length;
  if (packing == Packing::stream) {
    report_.rows = (report_.tokens - 1) / length;
    report_.dropped = report_.tokens - (report_.rows * length + 1);
  } else {
    packed_ = pack_documents(source_->documents(), length);
    report_.rows = packed_.rows();
    report_.dropped = packed_.left_out;
    report_.padding = report_.rows * length - (report_.tokens - packed_.left_out);
  }
  if (report_.rows > 0) return;
  if (packing == Packing::stream) {
    input_error(
        "{}: {} tokens in {} documents give no row of {} tokens, which takes {}; give more text or a shorter "
        "context.length",
        name, report_.tokens, report_.documents, length, length + 1);
  }
  input_error("{}: none of the {} documents has more than one token", name, report_.documents);
}

Batch Rows::batch(std::span<const int64_t> rows) const {
  const int64_t length = report_.length;
  Batch batch;
  batch.rows = static_cast<int64_t>(rows.size());
  batch.length = length;
  batch.tokens.reserve(static_cast<size_t>(batch.size()));
  batch.targets.reserve(static_cast<size_t>(batch.size()));
  batch.positions.reserve(static_cast<size_t>(batch.size()));
  batch.documents = {0};
  for (const int64_t row : rows) {
    packing_ == Packing::stream ? add_stream_row(row, batch) : add_packed_row(row, batch);
  }
  return batch;
}

void Rows::add_stream_row(int64_t row, Batch& batch) const {
  std::vector<int32_t> ids(static_cast<size_t>(report_.length) + 1);
  source_->copy(row * report_.length, ids);
  batch.tokens.insert(batch.tokens.end(), ids.begin(), ids.end() - 1);
  batch.targets.insert(batch.targets.end(), ids.begin() + 1, ids.end());
  add_document(report_.length, batch);
}

void Rows::add_packed_row(int64_t row, Batch& batch) const {
  int64_t room = report_.length;
  std::vector<int32_t> ids;
  for (const Piece& piece : packed_.row(row)) {
    ids.assign(static_cast<size_t>(piece.length) + 1, kIgnore);
    source_->copy(piece.begin, std::span(ids).first(ids.size() - (piece.goes_on ? 0 : 1)));
    batch.tokens.insert(batch.tokens.end(), ids.begin(), ids.end() - 1);
    for (int64_t i = 1; i < piece.length + (piece.goes_on ? 1 : 0); ++i)
      if (!source_->learns(piece.begin + i)) ids[static_cast<size_t>(i)] = kIgnore;
    batch.targets.insert(batch.targets.end(), ids.begin() + 1, ids.end());
    add_document(piece.length, batch);
    room -= piece.length;
  }
  if (room == 0) return;
  batch.tokens.insert(batch.tokens.end(), static_cast<size_t>(room), pad_);
  batch.targets.insert(batch.targets.end(), static_cast<size_t>(room), kIgnore);
  add_document(room, batch);
}

std::vector<Batch> Rows::all_rows(int64_t limit, int64_t micro) const {
  const int64_t wanted = limit > 0 ? std::min(limit, count()) : count();
  std::vector<Batch> batches;
  std::vector<int64_t> rows;
  for (int64_t i = 0; i < wanted; ++i) {
    rows.push_back(static_cast<int64_t>(static_cast<__int128>(i) * count() / wanted));
    if (static_cast<int64_t>(rows.size()) < micro && i + 1 < wanted) continue;
    batches.push_back(batch(rows));
    rows.clear();
  }
  return batches;
}

std::string Rows::fingerprint() const {
  return longlora::fingerprint(fmt::format("{} {} {} {}", source_->fingerprint(),
                                           packing_ == Packing::stream ? "stream" : "documents", report_.length, pad_));
}

}  // namespace longlora::data

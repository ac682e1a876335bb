// Writing safetensors: a few rows at a time on every core, opened again and compared when done.
#include <algorithm>
#include <cstdlib>
#include <limits>
#include <memory>
#include <new>
#include <numeric>
#include <set>

#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/hash.h"
#include "core/base/pages.h"
#include "core/base/parallel.h"
#include "core/io/atomic_file.h"
#include "core/io/safetensors.h"

namespace longlora::io {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

std::string_view text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

constexpr int64_t kPieceBytes = int64_t{2} << 20;

// The 8 length bytes and the header, padded with spaces to a multiple of 8, before large data to whole pages: its rows can then
// go to the disk past the page cache (atomic_file.h).
std::string header_of(const std::vector<TensorSource>& sources, const std::map<std::string, std::string>& metadata) {
  ordered_json root = ordered_json::object();
  if (!metadata.empty()) root["__metadata__"] = metadata;
  int64_t offset = 0;
  for (const TensorSource& source : sources) {
    ordered_json entry;
    entry["dtype"] = name_of(source.dtype);
    entry["shape"] = source.shape;
    entry["data_offsets"] = {offset, offset + byte_count(source)};
    root[source.name] = std::move(entry);
    offset += byte_count(source);
  }
  std::string text = root.dump();
  const size_t edge = offset < kPieceBytes ? 8 : AtomicFile::kPage, length_bytes = 8;
  text.resize((length_bytes + text.size() + edge - 1) / edge * edge - length_bytes, ' ');
  const uint64_t length = text.size();
  return std::string(reinterpret_cast<const char*>(&length), 8) + text;
}

// Memory whose address lies in a page as its offset lies in the file's.
class PieceBuffer {
 public:
  std::span<std::byte> take(int64_t offset, int64_t bytes) {
    constexpr size_t kPage = AtomicFile::kPage;
    const size_t begin = static_cast<size_t>(offset) % kPage,
                 need = (begin + static_cast<size_t>(bytes) + kPage - 1) / kPage;
    if (need > pages_) memory_.reset(static_cast<std::byte*>(std::aligned_alloc(kPage, need * kPage)));
    if (memory_ == nullptr) throw std::bad_alloc();
    pages_ = std::max(pages_, need);
    return {memory_.get() + begin, static_cast<size_t>(bytes)};
  }

 private:
  std::unique_ptr<std::byte, decltype(&std::free)> memory_{nullptr, &std::free};
  size_t pages_ = 0;
};

// Whole rows of one tensor, which one thread writes in one go.
struct Piece {
  size_t source;
  int64_t first;   // row
  int64_t offset;  // in the tensor's bytes
  int64_t bytes;
};

std::vector<Piece> pieces_of(const std::vector<TensorSource>& sources) {
  std::vector<Piece> pieces;
  for (size_t i = 0; i < sources.size(); ++i) {
    const int64_t bytes = byte_count(sources[i]);
    if (bytes == 0) continue;
    const int64_t rows = sources[i].shape.empty() ? 1 : sources[i].shape[0], row = bytes / rows;
    const int64_t whole_pages = AtomicFile::kPage / std::gcd(AtomicFile::kPage, row);  // so many rows are
    int64_t step = std::max<int64_t>(1, kPieceBytes / row);
    if (step > whole_pages) step -= step % whole_pages;
    for (int64_t first = 0; first < rows; first += step)
      pieces.push_back({i, first, first * row, std::min(step, rows - first) * row});
  }
  return pieces;
}

// Both ends of a piece: what is compared after writing. It shows rows that went to the wrong place or nowhere. All of it
// would mean to read as much from the disk as was written, which takes as long again.
std::string fingerprint_of(std::span<const std::byte> piece) {
  constexpr size_t kEnd = 4 << 10;
  if (piece.size() <= 2 * kEnd) return fingerprint(text_of(piece));
  return fingerprint(text_of(piece.first(kEnd))) + fingerprint(text_of(piece.last(kEnd)));
}

// The file as it now lies on the disk against what was meant to be written.
void compare(const fs::path& path, const std::vector<TensorSource>& sources, const std::vector<Piece>& pieces,
             const std::vector<std::string>& hashes) {
  try {
    const SafetensorsFile file(path);
    if (file.tensors().size() != sources.size())
      fail("{} tensors instead of {}", file.tensors().size(), sources.size());
    for (const TensorSource& source : sources) {
      const auto found = file.tensors().find(source.name);
      if (found == file.tensors().end()) fail("tensor '{}' is missing", source.name);
      if (found->second.dtype != source.dtype || found->second.shape != source.shape)
        fail("tensor '{}' differs", source.name);
    }
    for_each_piece(pieces.size(), [&](size_t i) {
      const Piece& piece = pieces[i];
      const TensorView& view = file.tensors().at(sources[piece.source].name);
      const auto bytes = view.bytes.subspan(static_cast<size_t>(piece.offset), static_cast<size_t>(piece.bytes));
      expect_few_pages(bytes);
      if (fingerprint_of(bytes) != hashes[i]) fail("tensor '{}' differs", sources[piece.source].name);
      release_pages(bytes);
    });
  } catch (const Error& error) {
    fail("{}: read back after writing, the file is not what was written: {}", path.string(), error.what());
  }
}

}  // namespace

int64_t byte_count(const TensorSource& source) {
  int64_t bytes = size_of(source.dtype);
  for (const int64_t dim : source.shape) {
    if (dim < 0 || __builtin_mul_overflow(bytes, dim, &bytes)) {
      fail("tensor '{}': impossible shape {}", source.name, shape_text(source.shape));
    }
  }
  return bytes;
}

void write_safetensors(const fs::path& path, std::vector<TensorSource> sources,
                       const std::map<std::string, std::string>& metadata) {
  std::sort(sources.begin(), sources.end(), [](const TensorSource& a, const TensorSource& b) {
    return a.dtype != b.dtype ? a.dtype > b.dtype : a.name < b.name;
  });
  std::set<std::string> names;
  for (const TensorSource& source : sources) {
    if (source.name == "__metadata__" || !names.insert(source.name).second) {
      fail("{}: no tensor may be called '{}', or it is there twice", path.string(), source.name);
    }
  }
  if (path.empty()) {
    for (const TensorSource& source : sources) {
      if (source.begin) source.begin();
      if (source.end) source.end();
    }
    return;
  }
  AtomicFile file(path);
  const std::string header = header_of(sources, metadata);
  const auto data = static_cast<int64_t>(header.size());
  std::vector<int64_t> begins = {data};  // of each tensor, and the file's end
  for (const TensorSource& source : sources) begins.push_back(begins.back() + byte_count(source));
  file.reserve(begins.back());
  file.write_at(0, std::as_bytes(std::span(header)));
  const std::vector<Piece> pieces = pieces_of(sources);
  std::vector<std::string> hashes(pieces.size());
  const auto write = [&](size_t i) {
    thread_local PieceBuffer space;  // one a thread, used again for each piece
    const Piece& piece = pieces[i];
    const int64_t offset = begins[piece.source] + piece.offset;
    const std::span<std::byte> rows = space.take(offset, piece.bytes);
    sources[piece.source].fill(piece.first, rows);
    hashes[i] = fingerprint_of(rows);
    file.write_at(offset, rows);
  };
  if (std::none_of(sources.begin(), sources.end(), [](const TensorSource& source) { return bool(source.begin); })) {
    for_each_piece(pieces.size(), write);
  } else {
    size_t first = 0;
    for (size_t s = 0; s < sources.size(); ++s) {
      size_t count = 0;
      while (first + count < pieces.size() && pieces[first + count].source == s) ++count;
      if (sources[s].begin) sources[s].begin();
      for_each_piece(count, [&](size_t i) { write(first + i); });
      if (sources[s].end) sources[s].end();
      first += count;
    }
  }
  file.sync();
  compare(file.work_path(), sources, pieces, hashes);
  file.commit();
}

void write_sharded(const fs::path& folder, std::vector<TensorSource> sources, int64_t max_shard_bytes,
                   std::string_view stem) {
  std::vector<std::vector<TensorSource>> shards;
  std::vector<TensorSource> open;
  int64_t open_bytes = 0, total_bytes = 0, total_elements = 0;
  for (TensorSource& source : sources) {
    const int64_t bytes = byte_count(source);
    total_bytes += bytes;
    total_elements += bytes / size_of(source.dtype);
    if (bytes > max_shard_bytes) {
      shards.emplace_back().push_back(std::move(source));
      continue;
    }
    if (open_bytes + bytes > max_shard_bytes) {
      shards.push_back(std::exchange(open, {}));
      open_bytes = 0;
    }
    open.push_back(std::move(source));
    open_bytes += bytes;
  }
  if (!open.empty() || shards.empty()) shards.push_back(std::move(open));
  const auto path_of = [&](const std::string& file) { return folder.empty() ? fs::path() : folder / file; };
  if (shards.size() == 1) {
    write_safetensors(path_of(fmt::format("{}.safetensors", stem)), std::move(shards[0]));
    return;
  }
  json index;
  index["metadata"] = {{"total_parameters", total_elements}, {"total_size", total_bytes}};
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string file = fmt::format("{}-{:05}-of-{:05}.safetensors", stem, i + 1, shards.size());
    for (const TensorSource& source : shards[i]) {
      if (index["weight_map"].contains(source.name))
        fail("{}: two tensors are called '{}'", folder.string(), source.name);
      index["weight_map"][source.name] = file;
    }
    write_safetensors(path_of(file), std::move(shards[i]));
  }
  if (folder.empty()) return;
  write_file_atomically(folder / fmt::format("{}.safetensors.index.json", stem), index.dump(2, ' ', true) + "\n");
}

}  // namespace longlora::io

// safetensors, the weight format of Hugging Face folders: a memory-mapped, bounds-checked reader and a writer
// that streams one tensor at a time.
//
// File: 8 bytes little-endian header length N, N bytes of JSON {name: {dtype, shape, data_offsets: [begin,
// end)}}, then the data. Offsets are relative to the end of the header; tensors fill the data without overlap
// or hole.
#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/file.h"

namespace longlora::io {

// In the order of the reference implementation, which sorts tensors in a file by it (descending).
enum class DType : uint8_t { boolean, u8, i8, f8_e5m2, f8_e4m3, i16, u16, f16, bf16, i32, u32, f32, f64, i64, u64 };

[[nodiscard]] int64_t size_of(DType dtype);                                // bytes per element
[[nodiscard]] std::string_view name_of(DType dtype);                       // as in the file: "F32", "BF16", ...
[[nodiscard]] std::optional<DType> dtype_of(std::string_view name);        // of a name in a file
[[nodiscard]] std::optional<DType> dtype_of_torch(std::string_view name);  // of a name in config.json: "bfloat16"
[[nodiscard]] std::string_view torch_name_of(DType dtype);

// [2, 3]
[[nodiscard]] std::string shape_text(std::span<const int64_t> shape);

// One tensor, row-major. The bytes belong to the file it came from and may be unaligned for the type (files
// whose header length is not a multiple of 8).
struct TensorView {
  DType dtype;
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;

  [[nodiscard]] int64_t count() const { return static_cast<int64_t>(bytes.size()) / size_of(dtype); }
};

// Rows [first, first + count) of the view's first dimension, or as many of them as there are.
[[nodiscard]] TensorView rows_of(const TensorView& view, int64_t first, int64_t count);

// One mapped file. Everything in the header is checked when it is opened: exit 3 naming file, tensor and
// fault.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const fs::path& path);

  [[nodiscard]] const std::map<std::string, TensorView>& tensors() const { return tensors_; }
  [[nodiscard]] const std::map<std::string, std::string>& metadata() const { return metadata_; }
  [[nodiscard]] const fs::path& path() const { return path_; }

 private:
  fs::path path_;
  MappedFile map_;
  std::map<std::string, TensorView> tensors_;
  std::map<std::string, std::string> metadata_;
};

// All tensors of a folder: `<stem>.safetensors`, or `<stem>.safetensors.index.json` with its shards; or of
// one given file. Exit 3: nothing of the kind there, only pickles (with the way out), index and shards
// disagree.
class TensorStore {
 public:
  explicit TensorStore(const fs::path& folder_or_file, std::string_view stem = "model");

  [[nodiscard]] bool contains(const std::string& name) const { return tensors_.contains(name); }
  [[nodiscard]] const TensorView& at(const std::string& name) const;  // exit 3 naming the nearest tensor
  [[nodiscard]] std::vector<std::string> names() const;               // sorted
  [[nodiscard]] const std::map<std::string, TensorView>& tensors() const { return tensors_; }
  [[nodiscard]] int64_t total_bytes() const;
  [[nodiscard]] const fs::path& path() const { return path_; }  // the folder or file it was opened with

 private:
  void add(const fs::path& file);
  fs::path path_;
  std::vector<SafetensorsFile> files_;
  std::map<std::string, TensorView> tensors_;
};

// A tensor to be written. `fill` is called once for every run of rows (of the first dimension; a scalar is one row), with
// the first row and the place for their bytes, from several threads at once and on threads of its own.
struct TensorSource {
  std::string name;
  DType dtype;
  std::vector<int64_t> shape;
  std::function<void(int64_t first, std::span<std::byte> rows)> fill;
  // Where there are any: called on the thread that writes the file, before its first row and after its last one. Tensors are
  // then written one after the other, in the order in which they lie in the file.
  std::function<void()> begin = {}, end = {};
};

// Bytes of a tensor; fails (exit 1) on a negative dimension or overflow.
[[nodiscard]] int64_t byte_count(const TensorSource& source);

// Writes a file that is complete under its name or absent, on all cores, each with a few megabytes of rows in memory.
// Tensors are laid out as the reference implementation does (dtype descending, then name; header padded to 8 bytes), and
// rows are begun in that order. The finished file is opened again and compared (names, dtypes, shapes, hashes of all
// bytes). Exit 1 when it cannot be written; nothing is left behind. An empty path: nothing is written, the sources' begin and
// end alone are called, in the same order.
void write_safetensors(const fs::path& path, std::vector<TensorSource> sources,
                       const std::map<std::string, std::string>& metadata = {{"format", "pt"}});

// Writes `<stem>.safetensors`, or several `<stem>-0000i-of-0000n.safetensors` of at most `max_shard_bytes`
// each (a larger tensor gets a shard of its own) with `<stem>.safetensors.index.json`, split in the order
// given as transformers does. An empty folder: as an empty path above.
void write_sharded(const fs::path& folder, std::vector<TensorSource> sources, int64_t max_shard_bytes,
                   std::string_view stem = "model");

}  // namespace longlora::io

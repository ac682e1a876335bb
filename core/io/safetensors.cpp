#include "core/io/safetensors.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <set>

#include <nlohmann/json.hpp>

#include "core/base/error.h"

namespace longlora::io {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors data is little-endian and used as it lies");

using nlohmann::json;

constexpr uint64_t kMaxHeader = 100'000'000;  // the reference implementation's limit

struct DTypeInfo {
  DType dtype;
  std::string_view name;
  int64_t size;
  std::string_view torch;
};

constexpr std::array kDTypes = {
    DTypeInfo{DType::boolean, "BOOL", 1, "bool"},
    DTypeInfo{DType::u8, "U8", 1, "uint8"},
    DTypeInfo{DType::i8, "I8", 1, "int8"},
    DTypeInfo{DType::f8_e5m2, "F8_E5M2", 1, "float8_e5m2"},
    DTypeInfo{DType::f8_e4m3, "F8_E4M3", 1, "float8_e4m3fn"},
    DTypeInfo{DType::i16, "I16", 2, "int16"},
    DTypeInfo{DType::u16, "U16", 2, "uint16"},
    DTypeInfo{DType::f16, "F16", 2, "float16"},
    DTypeInfo{DType::bf16, "BF16", 2, "bfloat16"},
    DTypeInfo{DType::i32, "I32", 4, "int32"},
    DTypeInfo{DType::u32, "U32", 4, "uint32"},
    DTypeInfo{DType::f32, "F32", 4, "float32"},
    DTypeInfo{DType::f64, "F64", 8, "float64"},
    DTypeInfo{DType::i64, "I64", 8, "int64"},
    DTypeInfo{DType::u64, "U64", 8, "uint64"},
};

const DTypeInfo& info(DType dtype) {
  return kDTypes[static_cast<size_t>(dtype)];
}

// The header as JSON; duplicate names and anything deeper than a tensor's lists are refused while parsing, so
// that a hostile header costs no more than its own length.
json parse_header(const fs::path& path, std::string_view text) {
  std::array<std::set<std::string>, 2> seen;  // names of tensors; keys of the present tensor
  const auto watch = [&](int depth, json::parse_event_t event, json& parsed) {
    using Event = json::parse_event_t;
    if ((event == Event::object_start && depth > 1) || (event == Event::array_start && depth != 2)) {
      input_error("{}: damaged header: unexpected nesting", path.string());
    }
    if (event == Event::object_start && depth == 1) seen[1].clear();
    if (event == Event::key && !seen[static_cast<size_t>(depth - 1)].insert(parsed.get<std::string>()).second) {
      input_error("{}: damaged header: '{}' occurs twice", path.string(), parsed.get<std::string>());
    }
    return true;
  };
  try {
    return json::parse(text, watch);
  } catch (const json::exception& error) {
    input_error("{}: damaged header: {}", path.string(), error.what());
  }
}

struct Extent {
  uint64_t begin, end;
  std::string name;
};

// What one entry of the header says, checked by itself.
TensorView read_entry(const fs::path& path, const std::string& name, const json& entry, uint64_t data_size,
                      Extent& extent) {
  const auto wrong = [&](const std::string& what) { input_error("{}: tensor '{}': {}", path.string(), name, what); };
  if (!entry.is_object()) wrong("its header entry is not an object");
  for (const char* key : {"dtype", "shape", "data_offsets"}) {
    if (!entry.contains(key)) wrong(fmt::format("its header entry lacks '{}'", key));
  }
  const json &dtype = entry["dtype"], &shape = entry["shape"], &offsets = entry["data_offsets"];
  if (!dtype.is_string()) wrong("dtype is not a string");
  const std::optional<DType> type = dtype_of(dtype.get_ref<const std::string&>());
  if (!type) wrong(fmt::format("unknown dtype '{}'", dtype.get_ref<const std::string&>()));
  if (!shape.is_array()) wrong("shape is not a list");
  TensorView view{*type, {}, {}};
  uint64_t bytes = static_cast<uint64_t>(size_of(*type));
  for (const json& dim : shape) {
    if (!dim.is_number_unsigned() || dim.get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      wrong(fmt::format("dimension {} is not a size", dim.dump()));
    }
    view.shape.push_back(dim.get<int64_t>());
    if (__builtin_mul_overflow(bytes, dim.get<uint64_t>(), &bytes)) wrong("shape overflows 64 bits");
  }
  if (!offsets.is_array() || offsets.size() != 2 || !offsets[0].is_number_unsigned() ||
      !offsets[1].is_number_unsigned()) {
    wrong("data_offsets are not two offsets");
  }
  extent = {offsets[0].get<uint64_t>(), offsets[1].get<uint64_t>(), name};
  if (extent.begin > extent.end) wrong("data_offsets run backwards");
  if (extent.end > data_size) {
    wrong(fmt::format("its data ends at byte {} of {}; the file is truncated or damaged", extent.end, data_size));
  }
  if (extent.end - extent.begin != bytes) {
    wrong(fmt::format("shape {} of {} takes {} bytes, data_offsets span {}", shape_text(view.shape), name_of(*type),
                      bytes, extent.end - extent.begin));
  }
  return view;
}

}  // namespace

int64_t size_of(DType dtype) {
  return info(dtype).size;
}

std::string_view name_of(DType dtype) {
  return info(dtype).name;
}

std::optional<DType> dtype_of(std::string_view name) {
  for (const DTypeInfo& i : kDTypes) {
    if (i.name == name) return i.dtype;
  }
  return std::nullopt;
}

std::optional<DType> dtype_of_torch(std::string_view name) {
  for (const DTypeInfo& i : kDTypes) {
    if (i.torch == name) return i.dtype;
  }
  return std::nullopt;
}

std::string_view torch_name_of(DType dtype) {
  return info(dtype).torch;
}

TensorView rows_of(const TensorView& view, int64_t first, int64_t count) {
  if (view.shape.empty()) return view;
  const int64_t have = view.shape[0];
  first = std::min(first, have);
  count = std::min(count, have - first);
  TensorView some = view;
  some.shape[0] = count;
  const size_t row = have == 0 ? 0 : view.bytes.size() / static_cast<size_t>(have);
  some.bytes = view.bytes.subspan(static_cast<size_t>(first) * row, static_cast<size_t>(count) * row);
  return some;
}

std::string shape_text(std::span<const int64_t> shape) {
  return fmt::format("[{}]", fmt::join(shape.begin(), shape.end(), ", "));
}

SafetensorsFile::SafetensorsFile(const fs::path& path) : path_(path), map_(path) {
  const std::span<const std::byte> all = map_.bytes();
  if (all.size() < 8) {
    input_error("{}: {} bytes are too few for a safetensors file", path.string(), all.size());
  }
  uint64_t header = 0;
  std::memcpy(&header, all.data(), 8);
  if (header > kMaxHeader || header > all.size() - 8) {
    input_error("{}: the header claims {} bytes, the file has {} (limit {}); truncated, damaged, or not safetensors",
                path.string(), header, all.size(), kMaxHeader);
  }
  const std::string_view text(reinterpret_cast<const char*>(all.data()) + 8, header);
  if (text.empty() || text.front() != '{') input_error("{}: damaged header: it is no JSON object", path.string());
  const json root = parse_header(path, text);
  const std::span<const std::byte> data = all.subspan(8 + header);

  std::vector<Extent> extents;
  for (const auto& [name, entry] : root.items()) {
    if (name == "__metadata__") {
      if (!entry.is_object()) input_error("{}: damaged header: __metadata__ is not an object", path.string());
      for (const auto& [key, value] : entry.items()) {
        if (!value.is_string()) input_error("{}: __metadata__ '{}' is not a string", path.string(), key);
        metadata_[key] = value.get<std::string>();
      }
      continue;
    }
    Extent& extent = extents.emplace_back();
    TensorView view = read_entry(path, name, entry, data.size(), extent);
    view.bytes = data.subspan(extent.begin, extent.end - extent.begin);
    tensors_.emplace(name, std::move(view));
  }
  std::sort(extents.begin(), extents.end(),
            [](const Extent& a, const Extent& b) { return std::tie(a.begin, a.end) < std::tie(b.begin, b.end); });
  uint64_t reached = 0;
  for (const Extent& e : extents) {
    if (e.begin != reached) {
      input_error("{}: tensor '{}': its data {} at byte {}, {} expected", path.string(), e.name,
                  e.begin < reached ? "overlaps another tensor's" : "leaves a hole", e.begin, reached);
    }
    reached = e.end;
  }
  if (reached != data.size()) {
    input_error("{}: {} bytes after the last tensor belong to none; damaged or written twice", path.string(),
                data.size() - reached);
  }
}

}  // namespace longlora::io

// The tensors of a folder: one file, or an index and its shards.
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/nearest.h"
#include "core/io/json_file.h"
#include "core/io/safetensors.h"

namespace longlora::io {
namespace {

// {tensor: file} of an index, the files being plain names in the same folder.
std::map<std::string, std::string> read_index(const fs::path& path) {
  const nlohmann::ordered_json root = read_json(path);
  if (!root.is_object() || !root.contains("weight_map") || !root["weight_map"].is_object()) {
    input_error("{}: has no object 'weight_map'", path.string());
  }
  std::map<std::string, std::string> map;
  for (const auto& [tensor, file] : root["weight_map"].items()) {
    if (!file.is_string()) input_error("{}: weight_map: '{}' names no file", path.string(), tensor);
    const std::string name = file.get<std::string>();
    if (name.empty() || name == "." || name == ".." || name.find_first_of(std::string_view("/\\\0", 3)) != name.npos) {
      input_error("{}: weight_map: '{}' names '{}', which is no file of this folder", path.string(), tensor, name);
    }
    map.emplace(tensor, name);
  }
  if (map.empty()) input_error("{}: weight_map is empty", path.string());
  return map;
}

[[noreturn]] void nothing_there(const fs::path& folder, std::string_view stem) {
  std::error_code ec;
  if (!fs::exists(folder, ec)) input_error("{}: no such folder", folder.string());
  for (const auto& entry : fs::directory_iterator(folder, ec)) {
    const std::string extension = entry.path().extension().string();
    if (extension == ".bin" || extension == ".pt" || extension == ".pth") {
      input_error(
          "{}: holds its weights only as a pickle ({}), which can run code when it is read; convert it once to "
          "safetensors with the library it came from: load it and call save_pretrained(folder, "
          "safe_serialization=True)",
          folder.string(), entry.path().filename().string());
    }
  }
  input_error("{}: has neither {}.safetensors nor {}.safetensors.index.json", folder.string(), stem, stem);
}

}  // namespace

TensorStore::TensorStore(const fs::path& folder_or_file, std::string_view stem) : path_(folder_or_file) {
  std::error_code ec;
  if (fs::is_regular_file(path_, ec)) {
    add(path_);
    return;
  }
  const fs::path single = path_ / fmt::format("{}.safetensors", stem);
  const fs::path index = path_ / fmt::format("{}.safetensors.index.json", stem);
  if (fs::exists(single, ec)) {
    add(single);
    return;
  }
  if (!fs::exists(index, ec)) nothing_there(path_, stem);
  const std::map<std::string, std::string> map = read_index(index);
  std::map<std::string, int64_t> expected;  // tensors per shard
  for (const auto& [tensor, file] : map) expected[file]++;
  for (const auto& [file, count] : expected) {
    if (!fs::exists(path_ / file, ec)) {
      input_error("{}: the shard is missing; {} lists {} tensors in it", (path_ / file).string(),
                  index.filename().string(), count);
    }
    add(path_ / file);
    for (const auto& [name, view] : files_.back().tensors()) {
      const auto listed = map.find(name);
      if (listed == map.end() || listed->second != file) {
        input_error("{}: holds tensor '{}', which {} {}; shards and index are not of the same save",
                    (path_ / file).string(), name, index.filename().string(),
                    listed == map.end() ? "does not list" : "places in " + listed->second);
      }
    }
  }
  for (const auto& [tensor, file] : map) {
    if (!tensors_.contains(tensor)) {
      input_error("{}: lacks tensor '{}' that {} places in it", (path_ / file).string(), tensor,
                  index.filename().string());
    }
  }
}

void TensorStore::add(const fs::path& file) {
  files_.emplace_back(file);
  for (const auto& [name, view] : files_.back().tensors()) tensors_.emplace(name, view);
}

const TensorView& TensorStore::at(const std::string& name) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) {
    const std::vector<std::string> known = names();
    input_error("{}: has no tensor '{}'{}", path_.string(), name, did_you_mean(name, known));
  }
  return found->second;
}

std::vector<std::string> TensorStore::names() const {
  std::vector<std::string> names;
  for (const auto& [name, view] : tensors_) names.push_back(name);
  return names;
}

int64_t TensorStore::total_bytes() const {
  int64_t total = 0;
  for (const auto& [name, view] : tensors_) total += static_cast<int64_t>(view.bytes.size());
  return total;
}

}  // namespace longlora::io

#include "core/io/context_record.h"

#include <algorithm>

#include "core/base/error.h"
#include "core/base/hash.h"
#include "core/io/json_file.h"

namespace longlora::io {

using nlohmann::ordered_json;

std::optional<ContextRecord> read_context_record(const fs::path& folder) {
  const fs::path file = folder / kContextRecordFile;
  if (!fs::exists(file)) return std::nullopt;
  ContextRecord record;
  try {
    const ordered_json root = read_json(file);
    record.version = root.at("longlora").get<std::string>();
    record.context_length = root.at("context_length").get<int64_t>();
    record.max_positions = root.at("max_position_embeddings").get<int64_t>();
    record.rope = root.at("rope");
    record.group_size = root.at("group_size").get<int64_t>();
    record.base_model = root.at("base_model").at("path").get<std::string>();
    record.base_fingerprint = root.at("base_model").at("fingerprint").get<std::string>();
    record.recipe = root.at("recipe");
    if (root.contains("stacked_on")) {
      for (const ordered_json& one : root["stacked_on"])
        record.stacked_on.push_back({one.at("path").get<std::string>(), one.at("fingerprint").get<std::string>()});
    }
  } catch (const ordered_json::exception& error) {
    input_error("{}: {}", file.string(), error.what());
  }
  if (record.context_length < 1 || record.max_positions < 1 || record.max_positions > INT32_MAX) {
    input_error("{}: context_length {} and max_position_embeddings {} cannot be", file.string(), record.context_length,
                record.max_positions);
  }
  return record;
}

void write_context_record(const ContextRecord& record, const fs::path& folder) {
  ordered_json root;
  root["longlora"] = record.version;
  root["context_length"] = record.context_length;
  root["max_position_embeddings"] = record.max_positions;
  root["rope"] = record.rope;
  root["group_size"] = record.group_size;
  root["base_model"] = {{"path", record.base_model}, {"fingerprint", record.base_fingerprint}};
  for (const StackedOn& one : record.stacked_on)
    root["stacked_on"].push_back({{"path", one.path}, {"fingerprint", one.fingerprint}});
  root["recipe"] = record.recipe;
  write_file_atomically(folder / kContextRecordFile, root.dump(2) + "\n");
}

std::string model_fingerprint(const TensorStore& model) {
  return tensors_fingerprint(model.tensors());
}

std::string tensors_fingerprint(const std::map<std::string, TensorView>& tensors) {
  constexpr size_t kSample = 1024;
  std::string text;
  for (const auto& [name, view] : tensors) {
    text += fmt::format("{}:{}:{}:", name, name_of(view.dtype), shape_text(view.shape));
    const size_t size = view.bytes.size(), sample = std::min(size, kSample);
    for (const size_t begin : {size_t{0}, (size - sample) / 2, size - sample}) {
      text.append(reinterpret_cast<const char*>(view.bytes.data()) + begin, sample);
    }
  }
  return fingerprint(text);
}

}  // namespace longlora::io

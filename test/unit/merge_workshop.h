// For the tests of merging: the golden base and one of its adapters in a folder of their own, where both can be changed.
#pragma once
#include <ATen/ATen.h>

#include <catch2/catch.hpp>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "core/adapt/merge.h"
#include "core/base/error.h"
#include "core/io/context_record.h"
#include "core/model/extend.h"
#include "core/model/tensors.h"
#include "test/unit/temporary_folder.h"

namespace longlora::test {

inline const fs::path kGolden = fs::path(LONGLORA_SOURCE_DIR) / "test/golden/merge";
inline const auto kQuiet = [](int64_t, int64_t) {};

// A folder's files copied, its tensors held so that they can be changed and written again.
struct Workshop {
  TemporaryFolder temporary;
  fs::path base = temporary.path() / "base", adapter = temporary.path() / "adapter", out = temporary.path() / "out";
  explicit Workshop(const std::string& which = "lora") {
    fs::copy(kGolden / "base", base);
    fs::copy(kGolden / which, adapter);
  }
  [[nodiscard]] adapt::MergeOptions options() const { return {.model = base, .adapters = {{adapter}}, .out = out}; }

  using Tensors = std::map<std::string, at::Tensor>;
  static void change(const fs::path& file, const std::function<void(Tensors&)>& edit) {
    Tensors tensors;
    {
      const io::SafetensorsFile in(file);
      for (const auto& [name, view] : in.tensors()) tensors[name] = model::as_tensor(view).clone();
    }
    edit(tensors);
    std::vector<io::TensorSource> sources;
    for (const auto& [name, tensor] : tensors) sources.push_back(model::source(name, tensor, tensor.scalar_type()));
    io::write_safetensors(file, sources);
  }
  void change_adapter(const std::function<void(Tensors&)>& edit) const {
    change(adapter / "adapter_model.safetensors", edit);
  }
  void change_base(const std::function<void(Tensors&)>& edit) const { change(base / "model.safetensors", edit); }
  static void change_json(const fs::path& file, const nlohmann::ordered_json& changes) {
    nlohmann::ordered_json root = nlohmann::ordered_json::parse(read_file(file));
    root.update(changes);
    write_file(file, root.dump());
  }
  void record(int64_t length) const {
    recipe::Rope rope;
    rope.type = "linear";
    const model::Config config = model::extend(model::read_config(base), rope, length).config;
    io::write_context_record({.version = "0.1.0",
                              .context_length = length,
                              .max_positions = config.max_positions,
                              .rope = model::rope_to_json(config.rope),
                              .group_size = length / 4,
                              .base_model = base.string(),
                              .base_fingerprint = io::model_fingerprint(io::TensorStore(base)),
                              .recipe = {{"seed", 42}}},
                             adapter);
  }
  [[nodiscard]] std::string refusal(Exit code = Exit::input) const {
    std::string message = "not refused";
    try {
      (void)adapt::merge(options(), kQuiet);
    } catch (const Error& error) {
      CHECK(error.code() == code);
      message = error.what();
    }
    CHECK_FALSE(fs::exists(out));
    for (const auto& entry : fs::directory_iterator(temporary.path())) {
      CHECK(entry.path().filename().string().find("partial") == std::string::npos);
    }
    return message;
  }
};

}  // namespace longlora::test

// For the tests of extraction: a base and a tuned model in a folder of their own, where both can be changed.
#pragma once
#include <algorithm>
#include <optional>

#include "core/adapt/extract.h"
#include "core/model/config.h"
#include "test/unit/merge_workshop.h"

namespace longlora::test {

inline const auto kSilent = [](int64_t, int64_t, const std::string&) {};
inline const std::string kEmbed = "model.embed_tokens.weight", kHead = "lm_head.weight", kNorm = "model.norm.weight";
inline const std::string kQ0 = "model.layers.0.self_attn.q_proj", kUp1 = "model.layers.1.mlp.up_proj";

using Tensors = std::map<std::string, at::Tensor>;

inline Tensors tensors_of(const fs::path& folder) {
  const io::TensorStore store(folder);
  Tensors tensors;
  for (const auto& [name, view] : store.tensors()) tensors[name] = model::as_tensor(view).clone();
  return tensors;
}

inline double distance(const at::Tensor& a, const at::Tensor& b) {
  return (a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>();
}

// A base and a tuned model, at first the same: llama of 2 layers, hidden 16, 24 tokens, bfloat16.
struct Pair {
  TemporaryFolder temporary;
  fs::path base = temporary.path() / "base", tuned = temporary.path() / "tuned", out = temporary.path() / "out";
  fs::path merged = temporary.path() / "merged";
  Pair() {
    fs::copy(kGolden / "base", base);
    fs::copy(kGolden / "base", tuned);
  }
  static void change(const fs::path& folder, const std::function<void(Tensors&)>& edit) {
    Tensors tensors = tensors_of(folder);
    edit(tensors);
    std::vector<io::TensorSource> sources;
    for (const auto& [name, tensor] : tensors) sources.push_back(model::source(name, tensor, tensor.scalar_type()));
    io::write_safetensors(folder / "model.safetensors", sources);
  }
  static void change_config(const fs::path& folder, const nlohmann::ordered_json& changes) {
    nlohmann::ordered_json root = nlohmann::ordered_json::parse(read_file(folder / "config.json"));
    root.update(changes);
    write_file(folder / "config.json", root.dump());
  }
  // Random changes of every weight whose name contains one of these.
  void tune(const std::vector<std::string>& names, uint64_t seed = 5) const {
    at::manual_seed(seed);
    change(tuned, [&](Tensors& tensors) {
      for (auto& [name, tensor] : tensors) {
        for (const std::string& part : names) {
          if (name.find(part) != std::string::npos) tensor = tensor + 0.1 * at::randn_like(tensor);
        }
      }
    });
  }
  [[nodiscard]] adapt::ExtractOptions options(int64_t rank = 16) const {
    return {.base = base, .tuned = tuned, .out = out, .goal = {.max_rank = rank}};
  }
  void merge(std::optional<io::DType> dtype = io::DType::f32) const {
    (void)adapt::merge({.model = base, .adapters = {{out}}, .out = merged, .dtype = dtype, .overwrite = true}, kQuiet);
  }
  [[nodiscard]] std::string refusal(const adapt::ExtractOptions& options, Exit code = Exit::input) const {
    std::string message = "not refused";
    try {
      (void)adapt::extract(options, kSilent);
    } catch (const Error& error) {
      CHECK(error.code() == code);
      message = error.what();
    }
    CHECK_FALSE(fs::exists(out));
    CHECK_FALSE(fs::exists(temporary.path() / ".out.extract"));
    return message;
  }
};

inline std::vector<std::string> files_of(const fs::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

inline void check_same_files(const fs::path& a, const fs::path& b) {
  CHECK(files_of(a) == files_of(b));
  for (const std::string& name : files_of(a)) {
    INFO(name);
    CHECK(read_file(a / name) == read_file(b / name));
  }
}

}  // namespace longlora::test

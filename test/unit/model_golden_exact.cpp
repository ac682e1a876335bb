// Logits and gradients in float64 against transformers and PEFT run in float64 (scripts/goldens/model.py), and every RoPE
// law through a whole model.
#include <catch2/catch.hpp>

#include <nlohmann/json.hpp>

#include "core/adapt/adapter_model.h"
#include "core/adapt/open_model.h"
#include "core/base/file.h"
#include "core/model/tensors.h"
#include "core/model/weights.h"
#include "test/unit/compatibility.h"
#include "test/unit/golden_batch.h"
#include "test/unit/temporary_folder.h"

namespace longlora {
namespace {

using nlohmann::json;

const fs::path kModels = fs::path(LONGLORA_SOURCE_DIR) / "test/golden/models";

double relative(const at::Tensor& ours, const at::Tensor& exact) {
  return ((ours - exact).norm() / exact.norm()).item<double>();
}

model::Llama in_double(const fs::path& folder) {
  return model::load_llama(io::TensorStore(folder), model::read_config(folder), at::kDouble, at::kCPU);
}

}  // namespace

TEST_CASE("logits in float64 equal those of transformers", "[model][golden]") {
  int models = 0;
  for (const auto& entry : fs::directory_iterator(kModels)) {
    if (!entry.is_directory()) continue;
    ++models;
    DYNAMIC_SECTION(test::compatible("model", entry.path().filename().string(), "base logits, float64")) {
      const json expected = json::parse(read_file(entry.path() / "expected.json"));
      const io::TensorStore golden(entry.path() / "expected.safetensors");
      const data::Batch batch = test::golden_batch(expected["tokens"]);
      const at::Tensor exact = model::as_tensor(golden.at("logits.base.float64"));  // [rows, length, vocab]
      const at::Tensor ours = in_double(entry.path()).logits(batch, {}).view(exact.sizes());
      CHECK(relative(ours, exact) < 1e-12);
    }
  }
  CHECK(models >= 7);
}

TEST_CASE("gradients in float64 equal those of transformers and PEFT, full attention and S2", "[model][golden]") {
  for (const auto& entry : fs::directory_iterator(kModels)) {
    if (!fs::exists(entry.path() / "adapter-longlora")) continue;
    const json expected = json::parse(read_file(entry.path() / "expected.json"));
    const io::TensorStore golden(entry.path() / "expected.safetensors");
    const data::Batch batch = test::golden_batch(expected["tokens"]);
    model::Llama llama = in_double(entry.path());
    adapt::make_trainable(llama, {.rank = 4, .alpha = 8}, 1);
    adapt::load_trained(llama, io::Adapter(entry.path() / "adapter-longlora"));
    const double scale = 1.0 / static_cast<double>(batch.target_count());
    const std::vector<model::Recompute> policies(static_cast<size_t>(llama.config().layers), model::Recompute::nothing);
    for (const auto& [label, loss] : expected["loss"].items()) {
      DYNAMIC_SECTION(test::compatible("model", entry.path().filename().string(),
                                       "adapter-longlora gradients, " + label + ", float64")) {
        const int64_t group = label == "full" ? 0 : std::stoll(label.substr(3));  // "s2.8"
        int compared = 0;
        const at::Tensor losses = llama.forward_backward(batch, {.group = group}, policies, scale, {});
        CHECK(losses.sum().item<double>() * scale == Approx(loss.get<double>()).epsilon(1e-12));
        for (const model::Parameter* p : llama.trainable()) {
          INFO(p->name);
          const at::Tensor exact = model::as_tensor(golden.at("grad." + label + "." + io::adapter_name(p->name)));
          CHECK(relative(p->grad, exact) < 1e-9);
          ++compared;
        }
        CHECK(compared == 22);
      }
    }
  }
}

TEST_CASE("every RoPE law gives the losses that transformers gives", "[model][golden]") {
  const fs::path base = kModels / "llama-gqa";
  const json expected = json::parse(read_file(base / "expected.json"));
  const data::Batch batch = test::golden_batch(expected["tokens"]);
  CHECK(expected["rope"].size() == 5);
  for (const auto& [law, golden] : expected["rope"].items()) {
    DYNAMIC_SECTION(test::compatible("rope", law, "losses of a whole model, float32")) {
      const test::TemporaryFolder folder;
      fs::copy(base / "model.safetensors", folder.path());
      json config = json::parse(read_file(base / "config.json"));
      config["max_position_embeddings"] = golden["max_position_embeddings"];
      config.erase("rope_scaling");
      config["rope_parameters"] = golden["rope_scaling"];
      config["rope_parameters"]["rope_theta"] = 10000.0;
      test::write_file(folder.path() / "config.json", config.dump());
      const auto losses = [&](at::ScalarType type) {
        const model::Llama llama =
            model::load_llama(io::TensorStore(folder.path()), model::read_config(folder.path()), type, at::kCPU);
        return llama.token_losses(batch, {})
            .to(at::kDouble)
            .view({batch.rows, batch.length})
            .narrow(1, 0, batch.length - 1);
      };
      std::vector<double> flat;
      for (const auto& row : golden["nll.float32"]) {
        for (const double nll : row) flat.push_back(nll);
      }
      const at::Tensor theirs = at::tensor(flat, at::kDouble).view({batch.rows, batch.length - 1});
      const at::Tensor exact = losses(at::kDouble);
      const double their_error = (theirs - exact).norm().item<double>();
      CHECK(their_error < 1e-4);
      CHECK((losses(at::kFloat) - exact).norm().item<double>() <= 2 * their_error + 1e-6);
    }
  }
}

}  // namespace longlora

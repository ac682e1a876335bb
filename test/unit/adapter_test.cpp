// PEFT's adapter_config.json: read, written, and what is refused.
#include <catch2/catch.hpp>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/io/adapter.h"
#include "core/io/context_record.h"
#include "core/io/name_pattern.h"
#include "test/unit/temporary_folder.h"

using namespace longlora;
using namespace longlora::io;
using nlohmann::ordered_json;

namespace {
const fs::path kMerge = fs::path(LONGLORA_SOURCE_DIR) / "test/golden/merge";
}

TEST_CASE("an adapter config of PEFT is read", "[adapter]") {
  const AdapterConfig c = read_adapter_config(kMerge / "lora");
  CHECK(c.rank == 4);
  CHECK(c.alpha == 8);
  CHECK(c.targets.size() == 4);
  CHECK(c.modules_to_save ==
        std::vector<std::string>{"embed_tokens", "input_layernorm", "post_attention_layernorm", "norm"});
  CHECK(c.modules_to_save == saved_modules({"embed", "norm"}));
  CHECK(c.scale_of("model.layers.0.self_attn.q_proj") == 2.0);
  CHECK(c.base_model == "test/golden/merge/base");
}

TEST_CASE("rank and alpha patterns and rsLoRA give PEFT's scales", "[adapter]") {
  const AdapterConfig c = read_adapter_config(kMerge / "patterns");
  CHECK(c.rslora);
  CHECK(c.rank_of("model.layers.0.self_attn.q_proj") == 4);
  CHECK(c.rank_of("model.layers.1.self_attn.q_proj") == 2);
  CHECK(c.rank_of("model.layers.11.self_attn.q_proj") == 4);
  CHECK(c.scale_of("model.layers.0.self_attn.q_proj") == Approx(6 / 2.0));
  CHECK(c.scale_of("model.layers.1.self_attn.q_proj") == Approx(6 / std::sqrt(2.0)));
  CHECK(c.scale_of("model.layers.1.mlp.down_proj") == Approx(3 / 2.0));
}

TEST_CASE("a pattern that would take for ever, or a name without end, is refused", "[adapter]") {
  const NamePattern endless("(([a-z0-9_.]*)*)*[!?]", "here");
  CHECK_THROWS_WITH(endless.matches("model.layers.0.self_attn.q_proj.and.so.on"), Catch::Contains("here: the pattern"));
  CHECK_FALSE(NamePattern("q_proj", "here").matches(std::string(500'000, 'q')));
}

TEST_CASE("an adapter of PEFT is sorted into pairs and whole weights", "[adapter]") {
  const Adapter lora(kMerge / "lora");
  CHECK(lora.low_rank().size() == 8);
  CHECK(lora.replaced().size() == 6);
  CHECK(lora.replaced().contains("model.norm.weight"));
  const Adapter patterns(kMerge / "patterns");
  CHECK(patterns.low_rank().at("model.embed_tokens").embedding);
  CHECK(patterns.low_rank().at("model.layers.1.self_attn.q_proj").rank == 2);
}

TEST_CASE("what is written has the keys that every PEFT knows, and reads back", "[adapter]") {
  const test::TemporaryFolder folder;
  const fs::path file = folder.path() / "adapter_config.json";
  AdapterConfig c;
  c.rank = 16;
  c.alpha = 32;
  c.dropout = 0.05;
  c.targets = {"q_proj", "v_proj"};
  c.modules_to_save = saved_modules({"embed", "norm", "lm_head"});
  c.base_model = "base";
  write_adapter_config(c, file);
  const ordered_json root = ordered_json::parse(read_file(file));
  std::vector<std::string> keys;
  for (const auto& [key, value] : root.items()) keys.push_back(key);
  CHECK(keys == std::vector<std::string>{"auto_mapping", "base_model_name_or_path", "bias", "fan_in_fan_out",
                                         "inference_mode", "init_lora_weights", "layers_pattern", "layers_to_transform",
                                         "lora_alpha", "lora_dropout", "modules_to_save", "peft_type", "r", "revision",
                                         "target_modules", "task_type"});
  CHECK(root["lora_alpha"].is_number_integer());
  const AdapterConfig again = read_adapter_config(file);
  CHECK(again.rank == 16);
  CHECK(again.alpha == 32);
  CHECK(again.dropout == 0.05);
  CHECK(again.targets == c.targets);
  CHECK(again.modules_to_save == c.modules_to_save);

  c.rslora = true;
  c.alpha = 1.5;
  c.rank_pattern = {{"q_proj", 8}};
  c.alpha_pattern = {{"q_proj", 4}};
  write_adapter_config(c, file);
  const AdapterConfig patterns = read_adapter_config(file);
  CHECK(patterns.rslora);
  CHECK(patterns.alpha == 1.5);
  CHECK(patterns.rank_pattern == c.rank_pattern);
  CHECK(patterns.alpha_pattern == c.alpha_pattern);
}

TEST_CASE("adapters that this program would misread are refused by name", "[adapter]") {
  const test::TemporaryFolder folder;
  const fs::path file = folder.path() / "adapter_config.json";
  const ordered_json good = ordered_json::parse(read_file(kMerge / "lora" / "adapter_config.json"));
  const std::vector<std::pair<ordered_json, std::string>> cases = {
      {{{"peft_type", "IA3"}}, "only LORA"},
      {{{"bias", "all"}}, "trained biases"},
      {{{"lora_bias", true}}, "'lora_bias'"},
      {{{"fan_in_fan_out", true}}, "'fan_in_fan_out'"},
      {{{"layer_replication", {{0, 2}}}}, "'layer_replication'"},
      {{{"trainable_token_indices", {1}}}, "'trainable_token_indices'"},
      {{{"target_parameters", {"x"}}}, "'target_parameters'"},
      {{{"init_lora_weights", "pissa"}}, "changes its base"},
      {{{"r", 0}}, "'r' is 0"},
      {{{"r", "four"}}, "adapter_config.json"},
      {{{"lora_alpha", nullptr}}, "adapter_config.json"},
      {{{"target_modules", {1, 2}}}, "'target_modules' is not a list of names"},
      {{{"modules_to_save", "norm"}}, "'modules_to_save' is not a list of names"},
      {{{"rank_pattern", {{"q_proj", 0}}}}, "'rank_pattern'"},
      {{{"rank_pattern", {{"q_proj", 1.5}}}}, "'rank_pattern'"},
      {{{"rank_pattern", {{"(", 2}}}}, "is no pattern"},
      {{{"bias", ordered_json::parse(std::string(90, '[') + std::string(90, ']'))}}, "trained biases"},
  };
  for (const auto& [changes, message] : cases) {
    INFO(changes.dump());
    ordered_json root = good;
    root.update(changes);
    test::write_file(file, root.dump());
    try {
      (void)read_adapter_config(file);
      FAIL("not refused");
    } catch (const Error& error) {
      CHECK(error.code() == Exit::input);
      CHECK_THAT(error.what(), Catch::Contains(message));
    }
  }
}

TEST_CASE("a context record is the same after writing and reading", "[adapter]") {
  const test::TemporaryFolder folder;
  CHECK_FALSE(read_context_record(folder.path()));
  const ContextRecord record{.version = "0.1.0",
                             .context_length = 32768,
                             .max_positions = 32768,
                             .rope = {{"rope_type", "linear"}, {"factor", 8.0}},
                             .group_size = 8192,
                             .base_model = "Llama-2-7b-hf",
                             .base_fingerprint = "abc",
                             .recipe = {{"seed", 42}}};
  write_context_record(record, folder.path());
  const ContextRecord again = read_context_record(folder.path()).value();
  CHECK(again.version == record.version);
  CHECK(again.context_length == record.context_length);
  CHECK(again.max_positions == record.max_positions);
  CHECK(again.rope == record.rope);
  CHECK(again.group_size == record.group_size);
  CHECK(again.base_model == record.base_model);
  CHECK(again.base_fingerprint == record.base_fingerprint);
  CHECK(again.recipe == record.recipe);
}

TEST_CASE("a model's fingerprint follows names, shapes and bytes", "[adapter]") {
  const test::TemporaryFolder folder;
  const auto fingerprint_with = [&](const std::string& name, std::vector<int64_t> shape, size_t changed) {
    write_safetensors(folder.path() / "model.safetensors",
                      {{name, DType::u8, std::move(shape), [changed](int64_t, std::span<std::byte> out) {
                          std::fill(out.begin(), out.end(), std::byte{1});
                          if (changed < out.size()) out[changed] = std::byte{2};
                        }}});
    return model_fingerprint(TensorStore(folder.path()));
  };
  const std::string first = fingerprint_with("a", {100, 100}, SIZE_MAX);
  CHECK(fingerprint_with("a", {100, 100}, SIZE_MAX) == first);
  CHECK(fingerprint_with("b", {100, 100}, SIZE_MAX) != first);
  CHECK(fingerprint_with("a", {50, 200}, SIZE_MAX) != first);
  for (const size_t at : {size_t{0}, size_t{5000}, size_t{9999}}) CHECK(fingerprint_with("a", {100, 100}, at) != first);
}

// config.json against what transformers understands of the same files, and against files that must be
// refused.
#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/file.h"
#include "core/model/config.h"
#include "test/unit/compatibility.h"
#include "test/unit/temporary_folder.h"

using namespace longlora;
using namespace longlora::model;
using nlohmann::json;
using nlohmann::ordered_json;

namespace {

const fs::path kConfigs = fs::path(LONGLORA_SOURCE_DIR) / "test/golden/configs";

bool same_model(const Config& a, const Config& b) {
  return a.architecture == b.architecture && a.vocab_size == b.vocab_size && a.hidden == b.hidden &&
         a.intermediate == b.intermediate && a.layers == b.layers && a.heads == b.heads && a.kv_heads == b.kv_heads &&
         a.head_dim == b.head_dim && a.rms_eps == b.rms_eps && a.tie_embeddings == b.tie_embeddings &&
         a.attention_bias == b.attention_bias && a.mlp_bias == b.mlp_bias && a.covered_length() == b.covered_length() &&
         a.sliding_window == b.sliding_window && a.rope == b.rope && a.bos == b.bos && a.pad == b.pad &&
         a.eos == b.eos && a.dtype == b.dtype;
}

// A small valid config with changes; a key set to "REMOVE" is taken out.
Config read_with(const ordered_json& changes) {
  ordered_json fields = ordered_json::parse(read_file(kConfigs / "v4_llama2.json"));
  for (const auto& [key, value] : changes.items()) {
    if (value == "REMOVE") {
      fields.erase(key);
    } else {
      fields[key] = value;
    }
  }
  const test::TemporaryFolder folder;
  test::write_file(folder.path() / "config.json", fields.dump());
  return read_config(folder.path());
}

std::string refusal(const ordered_json& changes) {
  try {
    (void)read_with(changes);
  } catch (const Error& error) {
    CHECK(error.code() == Exit::input);
    CHECK_THAT(error.what(), Catch::Contains("config.json"));
    return error.what();
  }
  return "not refused";
}

}  // namespace

TEST_CASE("config.json of transformers 4 and 5 means what transformers understands", "[config]") {
  const json expected = json::parse(read_file(kConfigs / "expected.json"));
  CHECK(expected.size() >= 15);
  for (const auto& [name, e] : expected.items()) {
    DYNAMIC_SECTION(test::compatible("config", name, "every field as transformers 5 understands it")) {
      const Config c = read_config(kConfigs / (name + ".json"));
      CHECK(c.architecture == e["architecture"]);
      CHECK(c.vocab_size == e["vocab_size"]);
      CHECK(c.hidden == e["hidden"]);
      CHECK(c.intermediate == e["intermediate"]);
      CHECK(c.layers == e["layers"]);
      CHECK(c.heads == e["heads"]);
      CHECK(c.kv_heads == e["kv_heads"]);
      CHECK(c.head_dim == e["head_dim"]);
      CHECK(c.rms_eps == e["rms_eps"]);
      CHECK(c.tie_embeddings == e["tie_embeddings"]);
      CHECK(c.attention_bias == e["attention_bias"]);
      CHECK(c.mlp_bias == e["mlp_bias"]);
      CHECK(c.max_positions == e["max_positions"]);
      CHECK(c.sliding_window == e["sliding_window"]);
      CHECK((c.bos ? json(*c.bos) : json()) == e["bos"]);
      CHECK(json(c.eos) == e["eos"]);
      CHECK(c.dtype == e["dtype"]);
      const json rope = rope_to_json(c.rope);
      for (const auto& [key, value] : e["rope"].items()) {
        INFO(key);
        CHECK(rope.value(key, json()) == value);
      }
    }
  }
}

TEST_CASE("a config written and read again is the same, in both spellings", "[config]") {
  const test::TemporaryFolder folder;
  for (const auto& entry : fs::directory_iterator(kConfigs)) {
    if (entry.path().filename() == "expected.json") continue;
    INFO(entry.path().filename().string());
    const Config c = read_config(entry.path());
    write_config(c, folder.path() / "config.json");
    const Config again = read_config(folder.path());
    CHECK(same_model(again, c));
    CHECK(config_json(again) == config_json(c));
    for (const char* spelling : {"rope_scaling", "rope_parameters"}) {  // an old reader sees one, a new the other
      ordered_json one = config_json(c);
      one.erase(spelling);
      if (std::string(spelling) == "rope_scaling") one.erase("rope_theta");
      test::write_file(folder.path() / "config.json", one.dump());
      CHECK(same_model(read_config(folder.path()), c));
    }
  }
}

TEST_CASE("scaled RoPE is written in every place where some reader looks", "[config]") {
  const ordered_json out = config_json(read_config(kConfigs / "v5_yarn.json"));
  CHECK(out["rope_theta"] == 2e4);
  CHECK(out["original_max_position_embeddings"] == 2048);
  CHECK(out["max_position_embeddings"] == 8192);
  CHECK(out["rope_scaling"]["type"] == "yarn");
  CHECK(out["rope_scaling"]["rope_type"] == "yarn");
  CHECK(out["rope_scaling"]["original_max_position_embeddings"] == 2048);
  CHECK(out["rope_parameters"]["rope_theta"] == 2e4);
  CHECK(out["rope_parameters"]["truncate"] == false);
  CHECK(out["torch_dtype"] == out["dtype"]);
  CHECK(out["transformers_version"] == "5.17.0");  // what this program does not know stays
}

TEST_CASE("fields that are absent take the architecture's defaults", "[config]") {
  const Config c = read_with({{"rms_norm_eps", "REMOVE"},
                              {"architectures", "REMOVE"},
                              {"hidden_act", "REMOVE"},
                              {"eos_token_id", "REMOVE"},
                              {"bos_token_id", nullptr},
                              {"torch_dtype", "REMOVE"}});
  CHECK(c.architecture == "LlamaForCausalLM");
  CHECK(c.rms_eps == 1e-6);
  CHECK(c.kv_heads == 4);
  CHECK(c.head_dim == 8);
  CHECK(c.eos == std::vector<int32_t>{2});
  CHECK_FALSE(c.bos);
  CHECK(c.dtype == "float32");
  CHECK(read_with({{"architectures", {"MistralForCausalLM"}}, {"num_key_value_heads", 4}}).sliding_window == 4096);
}

TEST_CASE("older spellings of RoPE settings are understood", "[config]") {
  const std::vector<double> ones(4, 1.0), ramp = {1, 2, 3, 4};
  const Config su = read_with({{"max_position_embeddings", 8192},
                               {"original_max_position_embeddings", 2048},
                               {"rope_scaling", {{"type", "su"}, {"short_factor", ones}, {"long_factor", ramp}}}});
  CHECK(su.rope.type == RopeType::longrope);
  CHECK(su.rope.original_length == 2048);
  CHECK(su.rope.factor == 4.0);
  CHECK(su.rope.long_factor == ramp);
  CHECK(su.covered_length() == 8192);

  const Config linear = read_config(kConfigs / "v4_linear.json");
  CHECK(linear.rope.original_length == 2048);
  CHECK(linear.covered_length() == 16384);
  CHECK(read_config(kConfigs / "v5_llama3_gqa.json").covered_length() == 131072);
  CHECK(read_config(kConfigs / "v4_llama2.json").covered_length() == 2048);
}

TEST_CASE("RoPE settings stand alone as JSON", "[config]") {
  for (const char* name : {"v4_llama2", "v4_linear", "v5_dynamic", "v5_yarn", "v5_longrope", "v5_llama3_gqa"}) {
    INFO(name);
    const Config c = read_config(kConfigs / fmt::format("{}.json", name));
    CHECK(rope_from_json(rope_to_json(c.rope), c.head_dim, "here") == c.rope);
  }
  CHECK_THROWS_WITH(
      rope_from_json({{"rope_type", "linear"}, {"original_max_position_embeddings", 8}}, 8, "longlora.json"),
      Catch::Contains("longlora.json") && Catch::Contains("'factor' is missing"));
}

TEST_CASE("configs that cannot be used are refused with the field's name", "[config]") {
  const ordered_json linear = {{"type", "linear"}, {"factor", 2.0}};
  const std::vector<std::pair<ordered_json, std::string>> cases = {
      {{{"architectures", {"Qwen2ForCausalLM"}}}, "Qwen2ForCausalLM; supported are LlamaForCausalLM and Mistral"},
      {{{"architectures", ordered_json::array()}}, "'architectures'"},
      {{{"architectures", "REMOVE"}, {"model_type", "gemma"}}, "gemma; supported are"},
      {{{"architectures", "REMOVE"}, {"model_type", "REMOVE"}}, "'architectures' is missing"},
      {{{"hidden_act", "gelu"}}, "only silu"},
      {{{"quantization_config", {{"quant_method", "gptq"}}}}, "quantized"},
      {{{"vocab_size", "REMOVE"}}, "'vocab_size' is missing"},
      {{{"hidden_size", nullptr}}, "'hidden_size' is missing"},
      {{{"max_position_embeddings", "REMOVE"}}, "'max_position_embeddings' is missing"},
      {{{"num_hidden_layers", 0}}, "at least 1"},
      {{{"num_hidden_layers", -3}}, "at least 1"},
      {{{"num_hidden_layers", 2.5}}, "whole number"},
      {{{"num_hidden_layers", "two"}}, "whole number"},
      {{{"vocab_size", 18446744073709551615ull}}, "too large"},
      {{{"vocab_size", 4294967296}}, "too large"},
      {{{"num_key_value_heads", 3}}, "does not divide"},
      {{{"hidden_size", 34}}, "not a multiple"},
      {{{"head_dim", 7}}, "not even"},
      {{{"rms_norm_eps", 0}}, "not positive"},
      {{{"rms_norm_eps", "small"}}, "a number is needed"},
      {{{"tie_word_embeddings", 1}}, "true or false"},
      {{{"eos_token_id", 64}}, "beyond the 64 tokens"},
      {{{"eos_token_id", "</s>"}}, "token id"},
      {{{"torch_dtype", "int8"}}, "floating-point"},
      {{{"partial_rotary_factor", 0.5}}, "partly rotated"},
      {{{"rope_scaling", 3}}, "not an object"},
      {{{"rope_scaling", {{"type", "banana"}, {"factor", 2.0}}}}, "'banana' is unknown; known are none, linear"},
      {{{"rope_scaling", {{"type", "linear"}}}}, "'factor' is missing"},
      {{{"rope_scaling", {{"type", "linear"}, {"factor", 0.5}}}}, "factor 0.5 is not at least 1"},
      {{{"rope_scaling", {{"type", "linear"}, {"factor", "2"}}}}, "a number is needed"},
      {{{"rope_theta", 0}}, "theta 0 is not above 1"},
      {{{"rope_scaling", linear}, {"rope_theta", -1}}, "theta -1 is not above 1"},
      {{{"rope_scaling", {{"type", "longrope"}, {"factor", 2.0}, {"short_factor", {1}}, {"long_factor", {1}}}}},
       "short_factor has 1 numbers"},
      {{{"rope_scaling", {{"type", "llama3"}, {"factor", 2.0}}}}, "'low_freq_factor' is missing"},
      {{{"rope_scaling", {{"type", "yarn"}, {"factor", 2.0}, {"beta_fast", 1}, {"beta_slow", 2}}}}, "not in order"},
      {{{"rope_scaling", {{"type", "yarn"}, {"factor", 2.0}, {"original_max_position_embeddings", 128}}},
        {"original_max_position_embeddings", 256}},
       "256 at the top level and 128"},
      {{{"rope_parameters", {{"full_attention", {{"rope_type", "default"}}}}}}, "'full_attention'"},
      {{{"rope_parameters", linear}}, "not refused"},
      {{{"rope_parameters", linear}, {"rope_scaling", {{"type", "linear"}, {"factor", 4.0}}}}, "different things"},
      {{{"rope_parameters", {{"rope_type", "default"}, {"rope_theta", 1e6}}}, {"rope_theta", 1e4}}, "different things"},
  };
  for (const auto& [changes, message] : cases) {
    INFO(changes.dump());
    CHECK_THAT(refusal(changes), Catch::Contains(message));
  }
}

TEST_CASE("a config.json that is missing or no JSON is exit 3", "[config]") {
  const test::TemporaryFolder folder;
  CHECK_THROWS_WITH(read_config(folder.path()), Catch::Contains("config.json"));
  const std::string deep(500'000, '[');  // would overrun the stack where it is copied
  for (const std::string& text : {std::string(), std::string("{"), std::string("[]"), std::string("null"),
                                  std::string("{\"architectures\":"), "{\"a\":" + deep}) {
    test::write_file(folder.path() / "config.json", text);
    INFO(text.substr(0, 30));
    try {
      (void)read_config(folder.path());
      FAIL("not refused");
    } catch (const Error& error) {
      CHECK(error.code() == Exit::input);
    }
  }
}

// RoPE laws against transformers' own functions in float64, and the rules by which a context grows.
#include <catch2/catch.hpp>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/file.h"
#include "core/model/extend.h"
#include "test/unit/compatibility.h"
#include "test/unit/temporary_folder.h"

using namespace longlora;
using namespace longlora::model;
using nlohmann::json;
using nlohmann::ordered_json;

namespace {

// A small model with these RoPE settings, pre-trained for (or saying) max_positions.
Config small(const ordered_json& rope_scaling = nullptr, int64_t max_positions = 128, double theta = 1e4) {
  const test::TemporaryFolder folder;
  const ordered_json fields = {{"architectures", {"LlamaForCausalLM"}},
                               {"vocab_size", 16},
                               {"hidden_size", 32},
                               {"intermediate_size", 32},
                               {"num_hidden_layers", 1},
                               {"num_attention_heads", 2},
                               {"max_position_embeddings", max_positions},
                               {"rope_theta", theta},
                               {"rope_scaling", rope_scaling}};
  test::write_file(folder.path() / "config.json", fields.dump());
  return read_config(folder.path());
}

recipe::Rope wish(const std::string& type, std::optional<double> factor = {}) {
  recipe::Rope rope;
  rope.type = type;
  rope.factor = factor;
  return rope;
}

std::string refusal(const Config& config, const recipe::Rope& rope, int64_t length) {
  try {
    (void)extend(config, rope, length);
  } catch (const Error& error) {
    CHECK(error.code() == Exit::usage);
    return error.what();
  }
  return "not refused";
}

const ordered_json kLinear4 = {{"type", "linear"}, {"factor", 4.0}};
const ordered_json kYarn4 = {{"type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 128}};
const ordered_json kLlama3 = {{"rope_type", "llama3"},
                              {"factor", 8.0},
                              {"low_freq_factor", 1.0},
                              {"high_freq_factor", 4.0},
                              {"original_max_position_embeddings", 128}};

}  // namespace

TEST_CASE("frequencies of every law equal transformers' in float64", "[rope]") {
  const json cases = json::parse(read_file(fs::path(LONGLORA_SOURCE_DIR) / "test/golden/rope.json"));
  CHECK(cases.size() >= 29);
  const test::TemporaryFolder folder;
  for (const json& golden : cases) {
    const std::string law = golden["rope_parameters"]["rope_type"];
    const std::string what =
        fmt::format("{}, {} tokens", golden["name"].get<std::string>(), golden["length"].get<int64_t>());
    DYNAMIC_SECTION(test::compatible("rope", law, what)) {
      const int64_t head_dim = golden["head_dim"];
      ordered_json fields = {{"architectures", {"LlamaForCausalLM"}},
                             {"vocab_size", 16},
                             {"hidden_size", 4 * head_dim},
                             {"intermediate_size", 32},
                             {"num_hidden_layers", 1},
                             {"num_attention_heads", 4},
                             {"max_position_embeddings", golden["max_position_embeddings"]},
                             {"rope_parameters", golden["rope_parameters"]}};
      test::write_file(folder.path() / "config.json", fields.dump());
      const Config config = read_config(folder.path());
      const RopeFrequencies f = frequencies(config.rope, head_dim, golden["length"]);
      CHECK(f.attention == Approx(golden["attention"].get<double>()).epsilon(1e-15));
      const std::vector<double> expected = golden["inverse"];
      REQUIRE(f.inverse.size() == expected.size());
      double worst = 0.0;
      for (size_t i = 0; i < expected.size(); ++i) worst = std::max(worst, std::abs(f.inverse[i] / expected[i] - 1.0));
      CHECK(worst < 4e-14);  // a pow of theta up to 1e7 with a rounded exponent: some tens of 2^-53
    }
  }
}

TEST_CASE("ntk is the theta that interpolates the slowest pair and leaves the fastest", "[rope]") {
  const Config config = small();
  const double theta = ntk_theta(1e4, 8.0, config.head_dim);
  RopeSettings plain = config.rope, stretched = config.rope;
  stretched.theta = theta;
  const auto a = frequencies(plain, config.head_dim, 1).inverse, b = frequencies(stretched, config.head_dim, 1).inverse;
  CHECK(b.front() == a.front());
  CHECK(b.back() == Approx(a.back() / 8.0).epsilon(1e-13));
  CHECK(ntk_theta(5e5, 8.0, 128) == Approx(4.1341e6).epsilon(1e-4));
}

TEST_CASE("theta schedules give the thetas that Gradient published, to the printed digits", "[rope]") {
  const auto stage = [](const Config& from, const std::string& type, std::optional<double> factor, int64_t length) {
    recipe::Rope rope = wish(type, factor);
    Config c = extend(from, rope, length).config;
    CHECK(c.rope.type == RopeType::none);
    CHECK(c.max_positions == length);
    return c;
  };
  Config llama3 = small(nullptr, 8192, 5e5);
  llama3.head_dim = 128;
  // 15.3 M, 207.1 M, 1.06 B, 2.80 B, stage after stage
  const Config k65 = stage(llama3, "dynamic-frozen", 4.0, 65536);
  CHECK(std::floor(k65.rope.theta) == 15'296'098);
  const Config k262 = stage(k65, "dynamic-frozen", 4.0, 262144);
  CHECK(std::abs(k262.rope.theta - 207'112'190) < 1);
  const Config k524 = stage(k262, "dynamic-frozen", 4.0, 524288);
  CHECK(std::abs(k524.rope.theta - 1'062'356'863) < 1);
  CHECK(std::abs(stage(k524, "dynamic-frozen", 1.6, 1048576).rope.theta - 2'804'339'922) < 1);
  CHECK(stage(k65, "dynamic-frozen", std::nullopt, 262144).rope.theta == k262.rope.theta);  // auto: the ratio, 4
  // 3,580,165,449 (the 70B and the published 8B config) and 45.2 B, in one step or in several
  const Config million = stage(llama3, "scaling-law", std::nullopt, 1048576);
  CHECK(std::floor(million.rope.theta) == 3'580'165'449);
  CHECK(std::abs(stage(llama3, "scaling-law", std::nullopt, 4194304).rope.theta / 45.22e9 - 1) < 1e-3);
  const Config two_steps =
      stage(stage(llama3, "scaling-law", std::nullopt, 65536), "scaling-law", std::nullopt, 1048576);
  CHECK(two_steps.rope.theta == Approx(million.rope.theta).epsilon(1e-12));
}

TEST_CASE("linear extension takes the ceiling of the length over the pre-trained length", "[rope]") {
  const Extension e = extend(small(), wish("linear"), 500);
  CHECK(e.config.rope.type == RopeType::linear);
  CHECK(e.config.rope.factor == 4.0);
  CHECK(e.config.rope.original_length == 128);
  CHECK(e.config.max_positions == 512);
  CHECK(e.length == 500);
  CHECK(e.description == "linear, factor 4 (128 \u2192 512)");
  CHECK(extend(small(), wish("linear", 8.0), 500).config.max_positions == 1024);
}

TEST_CASE("a second linear extension counts from the pre-trained length", "[rope]") {
  // LongLoRA's spelling (max_position_embeddings stays) and this program's
  const Config longlora_way = small(kLinear4), our_way = extend(small(), wish("linear"), 512).config;
  for (const Config& config : {longlora_way, our_way}) {
    CHECK(config.covered_length() == 512);
    const Config again = extend(config, wish("linear"), 2048).config;
    CHECK(again.rope.factor == 16.0);
    CHECK(again.rope.original_length == 128);
    CHECK(again.max_positions == 2048);
    CHECK(extend(config, wish("linear"), 300).config.rope.factor == 4.0);
    CHECK_THAT(refusal(config, wish("linear", 2.0), 256), Catch::Contains("below the model's own factor 4"));
  }
}

TEST_CASE("a written extension is read as the same settings", "[rope]") {
  const test::TemporaryFolder folder;
  recipe::Rope longrope = wish("longrope");
  longrope.short_factor = std::vector<double>(8, 1.0);
  longrope.long_factor = std::vector<double>(8, 3.5);
  for (const recipe::Rope& rope : {wish("linear"), wish("ntk"), wish("dynamic-frozen"), wish("scaling-law"),
                                   wish("dynamic"), wish("yarn"), longrope, wish("llama3"), wish("none")}) {
    INFO(rope.type);
    const Config extended = extend(small(), rope, 1024).config;
    write_config(extended, folder.path() / "config.json");
    const Config again = read_config(folder.path());
    CHECK(again.rope == extended.rope);
    CHECK(again.max_positions == extended.max_positions);
    CHECK(again.covered_length() == 1024);
    // and again: twice as far
    if (rope.type != "none") CHECK(extend(again, rope, 2048).config.covered_length() == 2048);
  }
}

TEST_CASE("ntk leaves a plain model with a larger theta", "[rope]") {
  const Extension e = extend(small(), wish("ntk"), 1024);
  CHECK(e.config.rope.type == RopeType::none);
  CHECK(e.config.rope.theta == Approx(1e4 * std::pow(8.0, 16.0 / 14.0)));
  CHECK(e.config.max_positions == 1024);
  CHECK_THAT(e.description, Catch::StartsWith("ntk, theta 10000 \u2192 "));
}

TEST_CASE("dynamic keeps max_position_embeddings, which its readers take as the original length", "[rope]") {
  const Config c = extend(small(), wish("dynamic"), 1024).config;
  CHECK(c.max_positions == 128);
  CHECK(c.rope.factor == 8.0);
  CHECK(c.covered_length() == 1024);
}

TEST_CASE("the model's own settings stay as far as they reach", "[rope]") {
  CHECK(extend(small(), wish("model"), 0).length == 128);
  CHECK(extend(small(), wish("model"), 128).config.rope == small().rope);
  CHECK(extend(small(kLlama3, 2048), wish("model"), 2048).config.rope == small(kLlama3, 2048).rope);
  const std::string message = refusal(small(), wish("model"), 129);
  CHECK_THAT(message, Catch::Contains("129") && Catch::Contains("128") && Catch::Contains("linear") &&
                          Catch::Contains("context.rope.theta"));
  CHECK_THAT(refusal(small(kYarn4, 512), wish("model"), 1024), Catch::Contains("yarn with a greater factor"));
  recipe::Rope theta = wish("model");
  theta.theta = 1e6;
  const Config c = extend(small(), theta, 4096).config;
  CHECK(c.rope.theta == 1e6);
  CHECK(c.max_positions == 4096);
}

TEST_CASE("what a length does not need is not changed", "[rope]") {
  for (const char* type : {"linear", "ntk", "dynamic-frozen", "scaling-law", "dynamic", "yarn", "llama3"}) {
    INFO(type);
    CHECK(extend(small(), wish(type), 128).config.rope == small().rope);
  }
  CHECK(extend(small(kYarn4, 512), wish("yarn"), 512).config.rope == small(kYarn4, 512).rope);
  recipe::Rope options = wish("yarn");
  options.beta_fast = 2;
  CHECK_THAT(refusal(small(), options, 128), Catch::Contains("would change nothing"));
}

TEST_CASE("another theta leaves the lengths alone that a law's readers take its factor from", "[rope]") {
  recipe::Rope theta = wish("model");
  theta.theta = 1e6;
  CHECK_THAT(refusal(small(kYarn4, 512), theta, 1024), Catch::Contains("yarn with a greater factor"));
  CHECK(extend(small(kYarn4, 512), theta, 512).config.max_positions == 512);
  const ordered_json dynamic = {{"type", "dynamic"}, {"factor", 2.0}};
  CHECK_THAT(refusal(small(dynamic), theta, 4096), Catch::Contains("dynamic with a greater factor"));
  CHECK(extend(small(dynamic), theta, 128).config.max_positions == small().max_positions);
}

TEST_CASE("a scaled model takes its own law further and no other", "[rope]") {
  for (const char* type : {"none", "linear", "ntk", "dynamic-frozen", "scaling-law", "dynamic", "llama3"}) {
    INFO(type);
    CHECK_THAT(refusal(small(kYarn4, 512), wish(type), 1024),
               Catch::Contains("scaled already (yarn, factor 4)") && Catch::Contains("'yarn' with a greater"));
  }
  CHECK_THAT(refusal(small(kLlama3, 2048), wish("linear"), 4096), Catch::Contains("llama3, factor 8"));
  const Config yarn = extend(small(kYarn4, 512), wish("yarn"), 2048).config;
  CHECK(yarn.rope.factor == 16.0);
  CHECK(yarn.max_positions == 2048);
  const Config llama3 = extend(small(kLlama3, 2048), wish("llama3"), 4096).config;
  CHECK(llama3.rope.factor == 32.0);
  CHECK(llama3.max_positions == 4096);
  ordered_json fixed = kYarn4;
  fixed["attention_factor"] = 1.1;
  CHECK_THAT(refusal(small(fixed, 512), wish("yarn"), 1024), Catch::Contains("attention_factor at 1.1"));
}

TEST_CASE("wishes that cannot be met say so", "[rope]") {
  CHECK_THAT(refusal(small(), wish("linear", 2.0), 512), Catch::Contains("covers 256 tokens"));
  CHECK_THAT(refusal(small(), wish("banana"), 512), Catch::Contains("'banana' is unknown"));
  CHECK_THAT(refusal(small(), wish("model", 2.0), 128), Catch::Contains("context.rope.factor has no meaning"));
  recipe::Rope rope = wish("linear");
  rope.beta_fast = 3.0;
  CHECK_THAT(refusal(small(), rope, 512), Catch::Contains("beta_fast has no meaning with context.rope.type 'linear'"));
  rope = wish("ntk");
  rope.theta = 5e5;
  CHECK_THAT(refusal(small(), rope, 512), Catch::Contains("theta has no meaning"));
  CHECK_THAT(refusal(small(), wish("longrope"), 512), Catch::Contains("short_factor has 0 numbers"));
  rope = wish("yarn");
  rope.beta_slow = 64.0;
  CHECK_THAT(refusal(small(), rope, 512), Catch::Contains("not in order"));
  // max_position_embeddings that is the extended length already, beside the factor
  CHECK_THAT(refusal(small(kLinear4, 512), wish("linear"), 3000), Catch::Contains("not refused"));
  CHECK_THAT(refusal(small({{"type", "linear"}, {"factor", 32.0}}, 4096), wish("linear", 16.0), 8192),
             Catch::Contains("below the model's own factor 32"));
}

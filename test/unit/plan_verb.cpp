// `longlora plan` as it is called: what it says, its JSON, and what it refuses.
#include <catch2/catch.hpp>

#include <nlohmann/json.hpp>

#include "test/unit/process.h"

using namespace longlora;

namespace {

test::Outcome plan(const std::string& arguments) {
  return test::run_in_shell("'" LONGLORA_BINARY "' plan " + arguments);
}

nlohmann::json json_of(const std::string& arguments) {
  const test::Outcome out = plan(arguments + " --json -");
  INFO(out.text);
  REQUIRE(out.code == 0);
  return nlohmann::json::parse(out.text);
}

}  // namespace

TEST_CASE("plan says what a run will take, by name of a model or from its folder", "[plan][verb]") {
  const test::Outcome out = plan("longlora-7b-32k --shape llama-2-7b --gpu h200");
  CHECK(out.code == 0);
  for (const char* part : {"8 x H200 141 GB: 6.75G parameters", "S2 groups of 8192", "recompute: ", ": fits",
                           "matrix products", "tokens/s, MFU", "1000 steps: "})
    CHECK_THAT(out.text, Catch::Contains(part));
  const auto parsed = json_of("longlora-7b-32k --shape llama-2-7b --gpu h200");
  CHECK(parsed["parameters"] == 6'738'415'616 + 8'388'608);  // and LoRA of rank 8 on q, k, v, o
  CHECK(parsed["memory"]["recompute"].size() == 32);

  const std::string folder = LONGLORA_SOURCE_DIR "/test/golden/models/llama";
  const std::string recipe = "longlora-7b-32k 'model.path=" + folder + "' context.length=512";
  CHECK(json_of(recipe)["memory"]["recompute"].size() == 2);
  const auto finish = json_of(recipe + " attention.finish=0.5");
  const double both = finish["step"]["seconds"].get<double>() + finish["step_full_attention"]["seconds"].get<double>();
  CHECK(finish["run_seconds"].get<double>() == Approx(500 * both));
}

TEST_CASE("plan splits the model where it would not fit, and names what would help", "[plan][verb]") {
  const std::string seventy = "longlora-70b-32k --shape llama-2-70b --gpu h200";
  CHECK(json_of(seventy)["shard"] == "model");
  CHECK(json_of(seventy + " parallel.shard=none")["memory"]["fits"] == false);
  CHECK(json_of(seventy + " parallel.shard=none")["remedies"][0] == "parallel.shard=auto");
  CHECK_THAT(plan("longlora-7b-100k --shape llama-2-7b context.length=262144").text,
             Catch::Contains("DOES NOT FIT") && Catch::Contains("would fit with: parallel.sequence="));
  const auto row = json_of("longlora-7b-100k --shape llama-2-7b context.length=1048576 parallel.sequence=8 --gpu h200");
  CHECK(row["memory"]["fits"] == true);
  CHECK(row["step"]["bytes_sent"]["sequence"].get<double>() > 0);
}

TEST_CASE("plan refuses what it cannot plan", "[plan][verb]") {
  const auto refused = [](const std::string& arguments, int code, const char* part) {
    const test::Outcome out = plan(arguments);
    INFO(arguments);
    CHECK(out.code == code);
    CHECK_THAT(out.text, Catch::Contains(part));
  };
  refused("", 2, "which recipe?");
  refused("longlora-7b-32k model.path=/no/such", 3, "--shape, one of llama-2-7b");
  refused("longlora-7b-32k --shape llama-2-8b", 2, "did you mean 'llama-2-7b'");
  refused("longlora-7b-32k --shape llama-2-7b --gpu h20", 2, "did you mean 'h200'");
  refused("longlora-7b-32k --shape llama-2-7b --gpus 0", 2, "--gpus 0");
  refused("longlora-7b-32k --shape llama-2-7b --nodes x", 2, "not a number");
  refused("longlora-7b-32k --shape llama-2-7b parallel.sequence=3", 2, "does not divide the 8 GPUs");
  refused("longlora-7b-32k --shape llama-2-7b memory.offload=activations", 2, "cannot be planned");
  refused("longlora-7b-32k --shape llama-2-7b optimizer.betsa=1", 2, "optimizer.betas");
}

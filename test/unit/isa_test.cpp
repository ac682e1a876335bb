// --isa: the program computes with the instruction set that it was given, and says so.
#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/file.h"
#include "core/base/isa.h"
#include "process.h"
#include "temporary_folder.h"

namespace longlora {
namespace {

constexpr const char* kModel = "'" LONGLORA_SOURCE_DIR "/test/golden/models/llama'";

// 256 tokens in a flat file of uint16, below the model's 96.
std::string write_tokens(const std::filesystem::path& folder) {
  const std::filesystem::path file = folder / "text.bin";
  std::ofstream out(file, std::ios::binary);
  for (int i = 0; i < 256; ++i) out.put(static_cast<char>(i * i % 89)).put('\0');
  return file.string();
}

test::Outcome evaluate(const std::string& before, const std::string& after, const std::string& data) {
  return test::run_in_shell("'" LONGLORA_BINARY "' " + before + " eval-ppl " + after + " --model " + kModel +
                            " --data '" + data + "' --context 64 --stride 0 --dtype stored --json -");
}

}  // namespace

TEST_CASE("--isa before or after the verb sets what is computed with, and the output names it", "[isa][verb]") {
  const test::TemporaryFolder folder;
  const std::string data = write_tokens(folder.path());
  std::vector<double> losses;
  for (const Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512, Isa::amx}) {
    if (isa > processor_isa()) continue;
    const std::string name(to_string(isa));
    for (const bool first : {true, false}) {
      const std::string option = first ? "--isa " + name : "--isa=" + name;
      const test::Outcome out = evaluate(first ? option : "", first ? "" : option, data);
      INFO(out.text);
      REQUIRE(out.code == 0);
      const auto json = nlohmann::json::parse(out.text.substr(out.text.find('{')));
      CHECK_THAT(json["device"].get<std::string>(), Catch::Contains(name + " kernels (instruction set limited)"));
      losses.push_back(json["results"][0]["loss"].get<double>());
    }
  }
  for (const double loss : losses) CHECK(loss == Approx(losses.front()).epsilon(1e-4));
}

TEST_CASE("--isa refuses what is no instruction set, or more than the processor has", "[isa]") {
  for (const char* words : {"--isa sse4 plan", "plan --isa sse4", "--isa=sse4 plan", "--isa"}) {
    const test::Outcome out = test::run_in_shell("'" LONGLORA_BINARY "' " + std::string(words));
    INFO(out.text);
    CHECK(out.code == 2);
    CHECK_THAT(out.text, Catch::Contains("baseline, avx2, avx512 or amx"));
  }
  CHECK_THROWS_WITH(limit_isa("avx22"), Catch::Contains("did you mean 'avx2'?"));
  CHECK_THROWS_WITH(limit_isa("avx512", Isa::avx2), Catch::Contains("programs can use avx2 at most"));
  CHECK_THROWS_WITH(limit_isa("avx2", Isa::baseline), Catch::Contains("programs can use baseline at most"));
}

}  // namespace longlora

// What doctor says, as text and for machines, and the verb in the program.
#include <catch2/catch.hpp>
#include <fstream>

#include "core/base/file.h"
#include "core/doctor/findings.h"
#include "core/ops/timing.h"
#include "process.h"
#include "temporary_folder.h"

namespace longlora {

TEST_CASE("what is wrong is marked and followed by its remedy, in text and JSON", "[doctor]") {
  doctor::Section section{.title = "GPUs", .findings = {}};
  section.fine("driver", "for CUDA 13.0");
  CHECK_FALSE(doctor::is_wrong(section));
  section.notice("load", "busy", "wait");
  CHECK_FALSE(doctor::is_wrong(section));
  section.wrong("GPU 0", "too old", "use model.device=cpu");
  CHECK(doctor::is_wrong(section));
  CHECK(doctor::to_text(section) ==
        "GPUs\n"
        "  driver  for CUDA 13.0\n"
        "~ load    busy\n"
        "          → wait\n"
        "! GPU 0   too old\n"
        "          → use model.device=cpu\n");
  section.figures["count"] = 1;
  CHECK(
      doctor::to_json(section).dump() ==
      R"({"title":"GPUs","findings":[{"level":"fine","name":"driver","value":"for CUDA 13.0"},)"
      R"({"level":"notice","name":"load","value":"busy","remedy":"wait"},)"
      R"({"level":"wrong","name":"GPU 0","value":"too old","remedy":"use model.device=cpu"}],"figures":{"count":1}})");
}

TEST_CASE("a time is the median of several calls after one to warm up, and of one call where that takes long",
          "[doctor]") {
  int calls = 0;
  const auto work = [&] { ++calls; };
  CHECK(ops::seconds_of(at::kCPU, work, 60) >= 0);
  CHECK(calls == 51);
  calls = 0;
  CHECK(ops::seconds_of(at::kCPU, work, 0) >= 0);
  CHECK(calls == 1);
}

TEST_CASE("doctor measures this machine and writes it as JSON", "[doctor]") {
  const test::TemporaryFolder folder;
  const fs::path file = folder.path() / "doctor.json";
  REQUIRE(test::exit_code(test::start({"doctor", "--dir", folder.path().string(), "--json", file.string()})) == 0);
  const auto json = nlohmann::json::parse(std::ifstream(file));
  REQUIRE(json["sections"].size() == 3);
  CHECK(json["sections"][0]["figures"]["bfloat16_flops"].get<double>() > 0);
  CHECK(json["sections"][0]["figures"]["copy_bytes_per_s"].get<double>() > 0);
  CHECK(json["sections"][1]["figures"]["memory_bytes"].get<int64_t>() > 0);
  CHECK(json["sections"][1]["figures"]["disk_free_bytes"].get<int64_t>() > 0);
  CHECK(json["sections"][2]["figures"]["gpus"].is_array());
  CHECK(std::distance(fs::directory_iterator(folder.path()), {}) == 1);  // the probe of the disk left nothing
}

TEST_CASE("doctor measures the links between ranks", "[doctor]") {
  const test::TemporaryFolder folder;
  const fs::path file = folder.path() / "links.json";
  REQUIRE(test::exit_code(test::start({"doctor", "--distributed", "--nproc", "2", "--dir", folder.path().string(),
                                       "--json", file.string()})) == 0);
  const auto links = nlohmann::json::parse(std::ifstream(file))["sections"].back()["figures"];
  CHECK(links["ranks"] == 2);
  for (const char* bytes : {"8", "1048576", "67108864"}) {
    CHECK(links[bytes]["all_reduce_s"].get<double>() > 0);
    CHECK(links[bytes]["exchange_s"].get<double>() > 0);
  }
}

TEST_CASE("doctor refuses what it cannot do", "[doctor]") {
  CHECK(test::exit_code(test::start({"doctor", "--distributed"})) == 2);  // one rank has no links
  CHECK(test::exit_code(test::start({"doctor", "--dir", "/nonexistent"})) == 2);
  CHECK(test::exit_code(test::start({"doctor", "model"})) == 2);
}

}  // namespace longlora

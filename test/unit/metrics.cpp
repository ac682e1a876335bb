// metrics.jsonl and TensorBoard events.
#include "core/io/metrics.h"

#include <catch2/catch.hpp>

#include <cmath>
#include <cstring>
#include <limits>

#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/io/tensorboard.h"
#include "test/unit/temporary_folder.h"

using namespace longlora;
using io::MetricsLog;
using json = nlohmann::ordered_json;

namespace {

json line(int64_t step) {
  return {{"step", step}, {"loss", 1.0 / static_cast<double>(step)}, {"tokens", step * 4096}};
}

void log_steps(const fs::path& file, int64_t resumed, int64_t first, int64_t last) {
  MetricsLog log(file, resumed);
  for (int64_t step = first; step <= last; ++step) log.write(line(step));
}

}  // namespace

TEST_CASE("a resumed run leaves the metrics of an uninterrupted one", "[metrics]") {
  const test::TemporaryFolder folder;
  const fs::path whole = folder.path() / "whole.jsonl", broken = folder.path() / "broken.jsonl";
  log_steps(whole, 0, 1, 9);
  log_steps(broken, 0, 1, 7);  // the checkpoint was at 4
  std::ofstream(broken, std::ios::app) << R"({"step":8,"lo)";
  log_steps(broken, 4, 5, 9);
  CHECK(read_file(broken) == read_file(whole));
  log_steps(broken, 0, 1, 9);  // a new run starts from nothing
  CHECK(read_file(broken) == read_file(whole));
}

TEST_CASE("a last line cut short by a crash is dropped, other damage is refused", "[metrics]") {
  const test::TemporaryFolder folder;
  const fs::path file = folder.path() / "m.jsonl";
  log_steps(file, 0, 1, 2);
  const std::string two = read_file(file);
  std::ofstream(file, std::ios::app) << R"({"step":3,"lo)";
  { const MetricsLog log(file, 100); }
  CHECK(read_file(file) == two);
  std::ofstream(file, std::ios::app) << "garbage\n";
  try {
    const MetricsLog log(file, 100);
    FAIL("was accepted");
  } catch (const Error& error) {
    CHECK(error.code() == Exit::input);
    CHECK_THAT(error.what(), Catch::Contains("m.jsonl:3: damaged line"));
  }
}

TEST_CASE("metrics are one line a step, at once, and numbers round-trip", "[metrics]") {
  const test::TemporaryFolder folder;
  const fs::path file = folder.path() / "m.jsonl";
  MetricsLog log(file, 0);
  const std::vector<double> values = {0.1, 1.0 / 3, 2e-5, 1e300, 5e-324, static_cast<double>(0.1f)};
  for (size_t i = 0; i < values.size(); ++i) log.write({{"step", i + 1}, {"loss", values[i]}});
  const std::string text = read_file(file);  // while the log is open
  size_t begin = 0;
  for (const double value : values) {
    const size_t end = text.find('\n', begin);
    REQUIRE(end != text.npos);
    CHECK(json::parse(text.substr(begin, end - begin))["loss"].get<double>() == value);
    begin = end + 1;
  }
  CHECK(begin == text.size());
  CHECK_THROWS_AS(MetricsLog(folder.path() / "no" / "m.jsonl", 0), Error);
}

TEST_CASE("CRC-32C gives the check values of RFC 3720", "[metrics]") {
  CHECK(io::crc32c("123456789") == 0xe3069283u);
  CHECK(io::crc32c(std::string(32, '\0')) == 0x8a9136aau);
  CHECK(io::crc32c(std::string(32, '\xff')) == 0x62a8ab43u);
}

TEST_CASE("event records have the bytes that the generator wrote", "[metrics]") {
  const io::Scalar one[] = {{"train/loss", 2.5}};
  const io::Scalar several[] = {{"train/loss", 0.1}, {"train/lr", 2e-5}, {std::string_view("ünïcode"), -1e30}};
  const std::string long_tag(300, 'x');
  const io::Scalar wide[] = {{long_tag, std::numeric_limits<double>::infinity()}};
  const std::string bytes = io::version_record(1700000000.25) + io::restart_record(1700000001.5, 101) +
                            io::scalar_record(1700000002, 1, one) + io::scalar_record(1700000003, 0, one) +
                            io::scalar_record(1700000004.125, int64_t{1} << 40, several) +
                            io::scalar_record(1700000005, 300, wide);
  const std::string golden = read_file(LONGLORA_SOURCE_DIR "/test/golden/tensorboard.tfevents");
  CHECK(bytes.size() == golden.size());
  CHECK((bytes == golden));
}

TEST_CASE("an event file starts with its version and grows record by record", "[metrics]") {
  const test::TemporaryFolder folder;
  const fs::path events = folder.path() / "deep" / "events";
  const io::Scalar loss[] = {{"loss", 1.5}};
  {
    io::EventFile file(events, 4);
    file.write(5, loss);
  }
  const auto entry = *fs::directory_iterator(events);
  CHECK_THAT(entry.path().filename().string(), Catch::StartsWith("events.out.tfevents."));
  const std::string bytes = read_file(entry.path());
  const std::string version = io::version_record(0), restart = io::restart_record(0, 5),
                    scalar = io::scalar_record(0, 5, loss);
  CHECK(bytes.size() == version.size() + restart.size() + scalar.size());
  CHECK(bytes.find("brain.Event:2") != bytes.npos);
  // past the two frames and the times, the last event is the scalar's
  CHECK(bytes.substr(bytes.size() - scalar.size() + 21, scalar.size() - 25) == scalar.substr(21, scalar.size() - 25));
}

// Files of torch.save: tensors are read, anything else is refused, damage of any kind is an error and nothing worse.
#include <catch2/catch.hpp>
#include <cstring>

#include "core/base/error.h"
#include "core/base/random.h"
#include "core/io/torch_file.h"
#include "test/unit/temporary_folder.h"

namespace longlora::io {
namespace {

const fs::path kGolden = fs::path(LONGLORA_SOURCE_DIR) / "test/golden/merge";

std::string refusal(const fs::path& file) {
  try {
    const TorchFile read(file);
  } catch (const Error& error) {
    CHECK(error.code() == Exit::input);
    CHECK_THAT(error.what(), Catch::Contains(file.filename().string()));
    return error.what();
  }
  return "not refused";
}

template <class T>
std::vector<T> values(const TensorView& view) {
  std::vector<T> out(static_cast<size_t>(view.count()));
  std::memcpy(out.data(), view.bytes.data(), view.bytes.size());
  return out;
}

}  // namespace

TEST_CASE("a dictionary of tensors of torch.save is read", "[torch_file]") {
  const TorchFile file(kGolden / "tensors.bin");
  const auto& tensors = file.tensors();
  REQUIRE(tensors.size() == 4);
  CHECK(tensors.at("weight").shape == std::vector<int64_t>{3, 4});
  CHECK(values<float>(tensors.at("weight")) == std::vector<float>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11});
  CHECK(tensors.at("view").dtype == DType::bf16);  // elements 3 to 6 of a larger storage
  CHECK(values<uint16_t>(tensors.at("view")) == std::vector<uint16_t>{0x4040, 0x4080, 0x40a0, 0x40c0});
  CHECK(values<double>(tensors.at("parameter")) == std::vector<double>{1, 1});
  CHECK(tensors.at("empty").shape == std::vector<int64_t>{0, 5});
}

TEST_CASE("a pickle that would call something is refused by name", "[torch_file]") {
  CHECK_THAT(refusal(kGolden / "calls.bin"), Catch::Contains("print") && Catch::Contains("safetensors"));
  CHECK_THAT(refusal(kGolden / "transposed.bin"), Catch::Contains("row by row"));
  CHECK_THAT(refusal(kGolden / "base/model.safetensors"), Catch::Contains("no zip archive"));
}

namespace {

template <class... Numbers>
std::string packed(Numbers... numbers) {
  std::string out;
  (out.append(reinterpret_cast<const char*>(&numbers), sizeof numbers), ...);
  return out;
}

// A zip archive of one stored member.
std::string archive_of(const std::string& name, const std::string& data) {
  const auto size = static_cast<uint32_t>(data.size());
  const auto length = static_cast<uint16_t>(name.size());
  const auto zero = uint16_t{0};
  const std::string sizes =
      packed(zero, zero, zero, zero, uint32_t{0}, size, size, length, zero);  // flags ... extra field
  const std::string local = packed(uint32_t{0x04034b50}, zero) + sizes + name + data;
  const std::string central =
      packed(uint32_t{0x02014b50}, zero, zero) + sizes + packed(zero, zero, zero, uint32_t{0}, uint32_t{0}) + name;
  return local + central +
         packed(uint32_t{0x06054b50}, zero, zero, uint16_t{1}, uint16_t{1}, static_cast<uint32_t>(central.size()),
                static_cast<uint32_t>(local.size()), zero);
}

}  // namespace

TEST_CASE("a pickle that is nested without end is refused like any other that is no dictionary", "[torch_file]") {
  const test::TemporaryFolder folder;
  const fs::path file = folder.path() / "nested.bin";
  test::write_file(file, archive_of("archive/data.pkl", "\x80\x02)" + std::string(2'000'000, '\x85') + "."));
  CHECK_THAT(refusal(file), Catch::Contains("data.pkl cannot be read"));
}

TEST_CASE("a damaged file of torch.save is an error, wherever it is damaged", "[torch_file]") {
  const std::string whole = read_file(kGolden / "longlora/adapter_model.bin");
  const test::TemporaryFolder folder;
  const fs::path file = folder.path() / "damaged.bin";
  const auto try_to_read = [&](const std::string& bytes) {
    test::write_file(file, bytes);
    try {
      const TorchFile read(file);
      for (const auto& [name, view] : read.tensors()) CHECK(view.bytes.size() <= bytes.size());
    } catch (const Error& error) {
      CHECK(error.code() == Exit::input);
    }
  };
  for (size_t size = 0; size < whole.size(); size += 1 + whole.size() / 200) try_to_read(whole.substr(0, size));
  const uint64_t seed = std::random_device{}();
  INFO("seed " << seed);
  SplitMix random(seed);
  for (int i = 0; i < 400; ++i) {
    std::string bytes = whole;
    for (int change = 0; change < 3; ++change) bytes[random.below(bytes.size())] = static_cast<char>(random.below(256));
    try_to_read(bytes);
  }
}

}  // namespace longlora::io

// Reading and writing safetensors against files of the reference library, and against files made to do harm.
#include <sys/resource.h>

#include <catch2/catch.hpp>
#include <csignal>
#include <cstring>
#include <numeric>

#include "core/base/error.h"
#include "core/io/safetensors.h"
#include "test/unit/temporary_folder.h"

using namespace longlora;
using namespace longlora::io;

namespace {

const fs::path kGolden = fs::path(LONGLORA_SOURCE_DIR) / "test/golden";

// Sources that write again what a file holds.
std::vector<TensorSource> copies(const std::map<std::string, TensorView>& tensors) {
  std::vector<TensorSource> sources;
  for (const auto& [name, view] : tensors) {
    sources.push_back({name, view.dtype, view.shape, [view](int64_t first, std::span<std::byte> out) {
                         const size_t row =
                             view.shape.empty() ? 0 : view.bytes.size() / static_cast<size_t>(view.shape[0]);
                         const auto rows = view.bytes.subspan(static_cast<size_t>(first) * row, out.size());
                         std::copy(rows.begin(), rows.end(), out.begin());
                       }});
  }
  return sources;
}

TensorSource floats(const std::string& name, int64_t n) {
  return {name, DType::f32, {n}, [n](int64_t, std::span<std::byte> out) {
            const std::vector<float> values(out.size() / sizeof(float), static_cast<float>(n));
            std::memcpy(out.data(), values.data(), out.size());
          }};
}

std::string file_of(const std::string& header, size_t data_bytes) {
  const uint64_t length = header.size();
  return std::string(reinterpret_cast<const char*>(&length), 8) + header + std::string(data_bytes, 'x');
}

Error error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error;
  }
  throw std::runtime_error("no error");
}

}  // namespace

TEST_CASE("a file of the reference library is read", "[safetensors]") {
  const SafetensorsFile file(kGolden / "mixed.safetensors");
  CHECK(file.tensors().size() == 8);
  CHECK(file.metadata() == std::map<std::string, std::string>{{"format", "pt"}});
  const TensorView& z = file.tensors().at("z.weight");
  CHECK(z.dtype == DType::f32);
  CHECK(z.shape == std::vector<int64_t>{2, 3});
  std::vector<float> values(6);
  std::memcpy(values.data(), z.bytes.data(), z.bytes.size());
  CHECK(values == std::vector<float>{0, 1, 2, 3, 4, 5});
  CHECK(file.tensors().at("a.weight").dtype == DType::bf16);
  CHECK(file.tensors().at("scalar").shape.empty());
  CHECK(file.tensors().at("scalar").count() == 1);
  CHECK(file.tensors().at("empty").count() == 0);
  CHECK(file.tensors().contains("naïve \"name\""));
}

TEST_CASE("what is written equals the reference library's file byte for byte", "[safetensors]") {
  const test::TemporaryFolder folder;
  const SafetensorsFile golden(kGolden / "mixed.safetensors");
  write_safetensors(folder.path() / "out.safetensors", copies(golden.tensors()));
  CHECK(read_file(folder.path() / "out.safetensors") == read_file(kGolden / "mixed.safetensors"));
}

TEST_CASE("shards and index equal the reference library's", "[safetensors]") {
  const test::TemporaryFolder folder;
  write_sharded(folder.path(), {floats("b", 4), floats("a", 8), floats("big", 20), floats("d", 6), floats("c", 3)}, 64);
  std::vector<std::string> files;
  for (const auto& entry : fs::directory_iterator(folder.path())) {
    const std::string name = entry.path().filename().string();
    files.push_back(name);
    if (!name.ends_with(".json")) CHECK(read_file(entry.path()) == read_file(kGolden / "sharded" / name));
  }
  CHECK(files.size() == 4);
  const TensorStore ours(folder.path()), theirs(kGolden / "sharded");
  CHECK(ours.names() == theirs.names());
  CHECK(ours.at("big").shape == std::vector<int64_t>{20});
  CHECK(ours.total_bytes() == 4 * 41);
}

TEST_CASE("large tensors of any size of row are written in pieces that meet", "[safetensors]") {
  const test::TemporaryFolder folder;
  const auto value = [](const std::string& name, size_t i) {
    return static_cast<std::byte>(i * 31 + name.size() * 7 + i / 4099);
  };
  std::vector<TensorSource> sources;
  // Rows of whole pages, of parts of pages, of odd bytes, of more than a piece; and a small one between them.
  const std::map<std::string, std::vector<int64_t>> shapes = {{"pages", {900, 8192}},
                                                              {"parts", {700, 11264}},
                                                              {"odd.", {3001, 1777}},
                                                              {"wide..", {2, 5'000'003}},
                                                              {"small...", {13}}};
  for (const auto& [name, shape] : shapes) {
    const size_t row = shape.size() == 1 ? 1 : static_cast<size_t>(shape[1]);
    sources.push_back({name, DType::u8, shape, [=, name = name](int64_t first, std::span<std::byte> out) {
                         for (size_t i = 0; i < out.size(); ++i)
                           out[i] = value(name, static_cast<size_t>(first) * row + i);
                       }});
  }
  write_safetensors(folder.path() / "out.safetensors", sources);
  const SafetensorsFile file(folder.path() / "out.safetensors");
  REQUIRE(file.tensors().size() == shapes.size());
  for (const auto& [name, view] : file.tensors()) {
    INFO(name);
    CHECK(view.shape == shapes.at(name));
    size_t wrong = 0;
    for (size_t i = 0; i < view.bytes.size(); ++i) wrong += view.bytes[i] != value(name, i);
    CHECK(wrong == 0);
  }
}

TEST_CASE("one shard is written without an index", "[safetensors]") {
  const test::TemporaryFolder folder;
  write_sharded(folder.path(), {floats("b", 4), floats("a", 8)}, 1000, "adapter_model");
  CHECK(fs::exists(folder.path() / "adapter_model.safetensors"));
  CHECK(TensorStore(folder.path(), "adapter_model").names() == std::vector<std::string>{"a", "b"});
}

TEST_CASE("hostile and damaged files are exit 3 with the file's name", "[safetensors]") {
  const std::string valid = R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";
  struct Case {
    std::string what, bytes, message;
  };
  const auto entry = [](const std::string& text) { return file_of(fmt::format(R"({{"a":{{{}}}}})", text), 8); };
  const std::string two = R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"U8","shape":[4],)";
  std::string huge = file_of(valid, 8);
  std::memset(huge.data(), 0xff, 8);
  std::string past = file_of(valid, 8);
  past[0] = static_cast<char>(valid.size() + 9);
  std::string deep(100'000, '[');
  const std::vector<Case> cases = {
      {"empty file", "", "too few"},
      {"seven bytes", "1234567", "too few"},
      {"header length of 2^64 - 1", huge, "header claims"},
      {"header one byte past the end", past, "header claims"},
      {"no header", file_of("", 0), "no JSON object"},
      {"a list", file_of("[]", 0), "no JSON object"},
      {"a string", file_of("\"x\"", 0), "no JSON object"},
      {"cut JSON", file_of(valid.substr(0, 30), 8), "damaged header"},
      {"bytes after the JSON", file_of(valid + "}", 8), "damaged header"},
      {"invalid UTF-8", file_of("{\"\xff\":1}", 8), "damaged header"},
      {"deep nesting", file_of(fmt::format(R"({{"a":{})", deep), 8), "nesting"},
      {"nested shape", entry(R"("dtype":"F32","shape":[[2]],"data_offsets":[0,8])"), "nesting"},
      {"object in an entry", entry(R"("dtype":{},"shape":[2],"data_offsets":[0,8])"), "nesting"},
      {"a tensor twice", file_of(fmt::format("{},{}", valid.substr(0, valid.size() - 1), valid.substr(1)), 8),
       "occurs twice"},
      {"a key twice", entry(R"("dtype":"F32","shape":[2],"shape":[2],"data_offsets":[0,8])"), "occurs twice"},
      {"entry is no object", file_of(R"({"a":3})", 0), "not an object"},
      {"no dtype", entry(R"("shape":[2],"data_offsets":[0,8])"), "lacks 'dtype'"},
      {"no shape", entry(R"("dtype":"F32","data_offsets":[0,8])"), "lacks 'shape'"},
      {"no offsets", entry(R"("dtype":"F32","shape":[2])"), "lacks 'data_offsets'"},
      {"dtype is a number", entry(R"("dtype":4,"shape":[2],"data_offsets":[0,8])"), "dtype is not"},
      {"unknown dtype", entry(R"("dtype":"F33","shape":[2],"data_offsets":[0,8])"), "unknown dtype"},
      {"shape is a number", entry(R"("dtype":"F32","shape":2,"data_offsets":[0,8])"), "shape is not"},
      {"negative dimension", entry(R"("dtype":"F32","shape":[-2],"data_offsets":[0,8])"), "is not a size"},
      {"fractional dimension", entry(R"("dtype":"F32","shape":[2.0],"data_offsets":[0,8])"), "is not a size"},
      {"dimension of 2^63", entry(R"("dtype":"F32","shape":[9223372036854775808],"data_offsets":[0,8])"), "is not a"},
      {"dimension of 10^30", entry(R"("dtype":"F32","shape":[1e30],"data_offsets":[0,8])"), "is not a size"},
      {"shape that overflows", entry(R"("dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8])"),
       "overflows"},
      {"shape that overflows to the right size",
       entry(R"("dtype":"F32","shape":[4611686018427387906],"data_offsets":[0,8])"), "overflows"},
      {"shape too large", entry(R"("dtype":"F32","shape":[3],"data_offsets":[0,8])"), "takes 12 bytes"},
      {"shape too small", entry(R"("dtype":"F32","shape":[1],"data_offsets":[0,8])"), "takes 4 bytes"},
      {"one offset", entry(R"("dtype":"F32","shape":[2],"data_offsets":[0])"), "two offsets"},
      {"three offsets", entry(R"("dtype":"F32","shape":[2],"data_offsets":[0,8,8])"), "two offsets"},
      {"negative offset", entry(R"("dtype":"F32","shape":[2],"data_offsets":[-8,0])"), "two offsets"},
      {"offsets backwards", entry(R"("dtype":"F32","shape":[2],"data_offsets":[8,0])"), "backwards"},
      {"offset past the end", entry(R"("dtype":"F32","shape":[2],"data_offsets":[8,16])"), "ends at byte 16 of 8"},
      {"offset of 2^64 - 1", entry(R"("dtype":"F32","shape":[2],"data_offsets":[0,18446744073709551615])"), "ends at"},
      {"truncated data", file_of(valid, 7), "truncated"},
      {"data too long", file_of(valid, 9), "belong to none"},
      {"data without tensors", file_of("{}", 9), "belong to none"},
      {"a hole at the start", file_of(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}})", 8), "hole"},
      {"overlap", file_of(two + R"("data_offsets":[4,8]}})", 8), "overlaps"},
      {"a hole between", file_of(two + R"("data_offsets":[9,13]}})", 13), "hole"},
      {"metadata is a list", file_of(R"({"__metadata__":3})", 0), "__metadata__"},
      {"metadata of numbers", file_of(R"({"__metadata__":{"a":3}})", 0), "not a string"},
  };
  const test::TemporaryFolder folder;
  const fs::path path = folder.path() / "model.safetensors";
  write_file_atomically(path, file_of(valid, 8));
  CHECK(SafetensorsFile(path).tensors().at("a").count() == 2);
  for (const Case& c : cases) {
    INFO(c.what);
    write_file_atomically(path, c.bytes);
    const Error error = error_of([&] { TensorStore{folder.path()}; });
    CHECK(error.code() == Exit::input);
    CHECK_THAT(error.what(), Catch::Contains(path.string()) && Catch::Contains(c.message));
  }
}

TEST_CASE("every single-byte change of a header is read or refused, never worse", "[safetensors]") {
  const test::TemporaryFolder folder;
  const fs::path path = folder.path() / "model.safetensors";
  const std::string valid = read_file(kGolden / "mixed.safetensors");
  uint64_t header = 0;
  std::memcpy(&header, valid.data(), 8);
  size_t refused = 0;
  for (size_t i = 0; i < 8 + header; ++i) {
    for (const char c : {'\0', '0', '9', '"', '}', '\xff'}) {
      std::string bytes = valid;
      bytes[i] = c;
      test::write_file(path, bytes);
      try {
        const SafetensorsFile file(path);
        for (const auto& [name, view] : file.tensors()) {
          CHECK(view.count() * size_of(view.dtype) == static_cast<int64_t>(view.bytes.size()));
        }
      } catch (const Error& error) {
        CHECK(error.code() == Exit::input);
        ++refused;
      }
    }
  }
  CHECK(refused > header);
}

TEST_CASE("folders without usable weights say what is wrong", "[safetensors]") {
  const test::TemporaryFolder folder;
  const auto message = [&] {
    const Error error = error_of([&] { TensorStore{folder.path()}; });
    CHECK(error.code() == Exit::input);
    return std::string(error.what());
  };
  CHECK_THAT(message(), Catch::Contains("neither model.safetensors nor"));
  write_file_atomically(folder.path() / "pytorch_model.bin", "x");
  CHECK_THAT(message(), Catch::Contains("pickle (pytorch_model.bin)") && Catch::Contains("safe_serialization"));

  const fs::path index = folder.path() / "model.safetensors.index.json";
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"{", "parse error"},
      {"{}", "weight_map"},
      {R"({"weight_map":{}})", "empty"},
      {R"({"weight_map":{"a":1}})", "names no file"},
      {R"({"weight_map":{"a":"../a.safetensors"}})", "no file of this folder"},
      {R"({"weight_map":{"a":"/etc/passwd"}})", "no file of this folder"},
      {R"({"weight_map":{"a":".."}})", "no file of this folder"},
      {R"({"weight_map":{"a":"a.safetensors"}})", "shard is missing"},
      {R"({"weight_map":{"b":"b.safetensors","a":"b.safetensors"}})", "lacks tensor 'a'"},
      {R"({"weight_map":{"x":"b.safetensors"}})", "does not list"},
  };
  write_safetensors(folder.path() / "b.safetensors", {floats("b", 2)});
  for (const auto& [text, expected] : cases) {
    INFO(text);
    write_file_atomically(index, text);
    CHECK_THAT(message(), Catch::Contains(expected));
  }
  write_file_atomically(index, R"({"weight_map":{"b":"b.safetensors"}})");
  const TensorStore store(folder.path());
  CHECK_THAT(error_of([&] { (void)store.at("bb"); }).what(), Catch::Contains("no tensor 'bb'"));
}

TEST_CASE("a full disk is exit 1 and leaves nothing", "[safetensors]") {
  const test::TemporaryFolder folder;
  rlimit before{};
  REQUIRE(getrlimit(RLIMIT_FSIZE, &before) == 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{4096, before.rlim_max};
  REQUIRE(setrlimit(RLIMIT_FSIZE, &small) == 0);
  std::optional<Error> error;
  try {
    write_safetensors(folder.path() / "model.safetensors", {floats("a", 500), floats("b", 10'000)});
  } catch (const Error& e) {
    error = e;
  }
  setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  REQUIRE(error);
  CHECK(error->code() == Exit::failed);
  CHECK_THAT(error->what(), Catch::Contains("model.safetensors: cannot write"));
  CHECK(fs::is_empty(folder.path()));
}

TEST_CASE("what cannot be written is refused before anything is", "[safetensors]") {
  const test::TemporaryFolder folder;
  const fs::path path = folder.path() / "model.safetensors";
  write_file_atomically(path, "a file, no folder");
  CHECK_THROWS_WITH(write_safetensors(path / "m.safetensors", {}), Catch::Contains("cannot create"));
  fs::remove(path);
  CHECK_THROWS_WITH(write_safetensors(path, {floats("a", 1), floats("a", 2)}), Catch::Contains("'a'"));
  CHECK_THROWS_WITH(write_safetensors(path, {floats("a", -1)}), Catch::Contains("impossible shape"));
  TensorSource thrower = floats("a", 1);
  thrower.fill = [](int64_t, std::span<std::byte>) { fail("the source failed"); };
  CHECK_THROWS_WITH(write_safetensors(path, {thrower}), Catch::Contains("the source failed"));
  CHECK(fs::is_empty(folder.path()));
}

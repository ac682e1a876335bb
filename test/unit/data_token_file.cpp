// Token files: what is read is what stands in the bytes, and a file that doesn't fit is refused with the
// numbers.
#include <catch2/catch.hpp>
#include <limits>

#include "core/io/token_file.h"
#include "test/unit/data_support.h"

using namespace longlora;
using longlora::io::TokenFile;
using longlora::test::error_of;
using longlora::test::raw;

namespace {

std::vector<int32_t> all_tokens(const TokenFile& file) {
  std::vector<int32_t> ids(static_cast<size_t>(file.tokens()));
  file.copy(0, ids);
  return ids;
}

nlohmann::json index_of(int64_t tokens, std::vector<int64_t> documents, const char* dtype = "uint16") {
  return {{"format", "longlora-tokens"},
          {"version", 1},
          {"dtype", dtype},
          {"tokens", tokens},
          {"vocab", 100},
          {"tokenizer", "ours"},
          {"bos", false},
          {"documents", std::move(documents)},
          {"sources", nlohmann::json::array()}};
}

}  // namespace

TEST_CASE("a flat uint16 file is one document, an indexed file has its own", "[data][token_file]") {
  const test::Folder folder;
  const TokenFile flat(folder.write("flat.bin", raw<uint16_t>({1, 2, 65535, 31999})));
  CHECK(all_tokens(flat) == std::vector<int32_t>{1, 2, 65535, 31999});
  CHECK(std::vector(flat.documents().begin(), flat.documents().end()) == std::vector<int64_t>{0, 4});
  CHECK(!flat.indexed());
  flat.check_tokenizer("whatever");

  folder.write("wide.idx.json", index_of(3, {0, 1}, "uint32").dump());
  const TokenFile wide(folder.write("wide.bin", raw<uint32_t>({7, 128255, 9})));
  CHECK(all_tokens(wide) == std::vector<int32_t>{7, 128255, 9});
  CHECK(std::vector(wide.documents().begin(), wide.documents().end()) == std::vector<int64_t>{0, 1, 3});
  std::vector<int32_t> part(2);
  wide.copy(1, part);
  CHECK(part == std::vector<int32_t>{128255, 9});
  wide.check_tokenizer("ours");
  const std::string error = error_of([&] { wide.check_tokenizer("theirs"); });
  CHECK(error.starts_with("3|" + folder.str("wide.bin")));
  CHECK((error.find("ours") != std::string::npos && error.find("theirs") != std::string::npos));
}

TEST_CASE("ids outside the vocabulary are found wherever they stand", "[data][token_file]") {
  const test::Folder folder;
  std::vector<uint16_t> narrow(200000, 99);
  std::vector<uint32_t> wide(200000, 99);
  for (const size_t at : {0, 65535, 65536, 131071, 199999}) {
    narrow[at] = 100;
    const TokenFile file(folder.write("narrow.bin", raw(narrow)));
    narrow[at] = 99;
    file.check_vocabulary(101);
    CHECK(
        error_of([&] { file.check_vocabulary(100); })
            .starts_with(fmt::format("3|{}: token 100 at offset {} (byte {}) is outside the model's vocabulary of 100",
                                     folder.str("narrow.bin"), at, 2 * at)));
    wide[at] = 4000000000U;
    folder.write("wide.idx.json", index_of(200000, {0}, "uint32").dump());
    const TokenFile broad(folder.write("wide.bin", raw(wide)));
    wide[at] = 99;
    CHECK(error_of([&] { broad.check_vocabulary(128256); })
              .starts_with(
                  fmt::format("3|{}: token 4000000000 at offset {} (byte {})", folder.str("wide.bin"), at, 4 * at)));
  }
  TokenFile(folder.write("top.bin", raw<uint16_t>({65535}))).check_vocabulary(65536);
  CHECK(error_of([&] { TokenFile(folder / "top.bin").check_vocabulary(65535); }).starts_with("3|"));
}

TEST_CASE("a token file whose size or index is wrong is refused", "[data][token_file]") {
  const test::Folder folder;
  const auto open = [&] { (void)TokenFile(folder / "a.bin"); };
  CHECK(error_of(open).starts_with("3|" + folder.str("a.bin: No such file")));
  folder.write("a.bin", "abc");
  CHECK(error_of(open).starts_with("3|" + folder.str("a.bin: 3 bytes are no whole number of uint16 tokens")));
  folder.write("a.bin", "");
  CHECK(error_of(open).starts_with("3|" + folder.str("a.bin: holds no tokens")));

  folder.write("a.bin", raw<uint16_t>({1, 2, 3, 4}));
  const auto with = [&](const nlohmann::json& index) {
    folder.write("a.idx.json", index.dump());
    return error_of(open);
  };
  CHECK(with(index_of(4, {0, 2})) == "no error");
  CHECK(with(index_of(3, {0, 2})).starts_with("3|" + folder.str("a.bin: has 8 bytes, but")));
  CHECK(with(index_of(4, {0, 2}, "uint32")).starts_with("3|"));
  for (const std::vector<int64_t>& documents :
       std::vector<std::vector<int64_t>>{{}, {1, 2}, {0, 2, 2}, {0, 4}, {0, 3, 2}, {0, 9}, {-1}}) {
    CAPTURE(documents);
    CHECK(with(index_of(4, documents)).starts_with("3|" + folder.str("a.idx.json: damaged index")));
  }
  for (const char* key : {"format", "version", "dtype", "tokens", "tokenizer", "documents"}) {
    nlohmann::json index = index_of(4, {0});
    index[key] = nlohmann::json::object();
    CAPTURE(key);
    CHECK(with(index).starts_with("3|" + folder.str("a.idx.json: damaged index")));
    index.erase(key);
    CHECK(with(index).starts_with("3|" + folder.str("a.idx.json: damaged index")));
  }
  for (const int64_t tokens : {int64_t{-4}, int64_t{1} << 62, std::numeric_limits<int64_t>::max()}) {
    CHECK(with(index_of(tokens, {0})).starts_with("3|"));
  }
  folder.write("a.idx.json", "{\"format\":");
  CHECK(error_of(open).starts_with("3|" + folder.str("a.idx.json: damaged index")));
}

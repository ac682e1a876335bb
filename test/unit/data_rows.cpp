// From tokens to batches: every row against a reference that knows only the definition of the packing.
#include <catch2/catch.hpp>
#include <numeric>
#include <set>

#include "core/data/rows.h"
#include "test/unit/data_support.h"

using namespace longlora;
using namespace longlora::data;
using longlora::test::ByteTokenizer;
using longlora::test::error_of;
using longlora::test::raw;

namespace {

// A token file with documents of these sizes; ids count up, so that each token is known by its id.
std::shared_ptr<const TokenSource> numbered(const test::Folder& folder, const std::vector<int64_t>& sizes) {
  std::vector<uint32_t> ids;
  std::vector<int64_t> starts;
  for (const int64_t size : sizes) {
    starts.push_back(static_cast<int64_t>(ids.size()));
    for (int64_t i = 0; i < size; ++i) ids.push_back(static_cast<uint32_t>(ids.size()));
  }
  folder.write("n.idx.json", nlohmann::json{{"format", "longlora-tokens"},
                                            {"version", 1},
                                            {"dtype", "uint32"},
                                            {"vocab", 1000000},
                                            {"tokens", ids.size()},
                                            {"tokenizer", "none"},
                                            {"documents", starts}}
                                 .dump());
  SourceOptions options;
  options.patterns = {folder.write("n.bin", raw(ids)).string()};
  options.vocab = 1000000;
  return std::make_shared<TokenSource>(TokenSource::open(options));
}

std::vector<int64_t> some_sizes(uint32_t seed, int documents, int64_t longest) {
  std::mt19937 random(seed);
  std::vector<int64_t> sizes;
  for (int i = 0; i < documents; ++i) {
    sizes.push_back(1 + static_cast<int64_t>(random()) % (random() % 4 == 0 ? longest : longest / 5 + 1));
  }
  return sizes;
}

// How full each row is under best fit decreasing, found by looking at all rows every time.
std::vector<int64_t> best_fit_decreasing(std::vector<int64_t> pieces, int64_t length) {
  std::sort(pieces.rbegin(), pieces.rend());
  std::vector<int64_t> filled;
  for (const int64_t piece : pieces) {
    int64_t* best = nullptr;
    for (int64_t& row : filled) {
      if (row + piece <= length && (best == nullptr || row > *best)) best = &row;
    }
    best != nullptr ? void(*best += piece) : filled.push_back(piece);
  }
  std::sort(filled.begin(), filled.end());
  return filled;
}

std::vector<int64_t> all_numbers(int64_t n) {
  std::vector<int64_t> all(static_cast<size_t>(n));
  std::iota(all.begin(), all.end(), 0);
  return all;
}

}  // namespace

TEST_CASE("a stream's rows follow one another, each target the next token", "[data][rows]") {
  const test::Folder folder;
  const auto source = numbered(folder, {5, 1, 30, 4, 61});  // 101 tokens
  const int64_t length = GENERATE(1, 2, 10, 33, 50, 99, 100);
  const Rows rows(source, Packing::stream, length, 0);
  REQUIRE(rows.count() == 100 / length);
  CHECK(rows.report().dropped == 100 % length);
  const Batch batch = rows.batch(all_numbers(rows.count()));
  CHECK(batch.rows == rows.count());
  CHECK(batch.length == length);
  REQUIRE(static_cast<int64_t>(batch.tokens.size()) == batch.size());
  REQUIRE(batch.targets.size() == batch.tokens.size());
  REQUIRE(batch.positions.size() == batch.tokens.size());
  for (int64_t i = 0; i < batch.size(); ++i) {
    CHECK(batch.tokens[static_cast<size_t>(i)] == i);
    CHECK(batch.targets[static_cast<size_t>(i)] == i + 1);
    CHECK(batch.positions[static_cast<size_t>(i)] == i % length);
  }
  for (int64_t r = 0; r <= rows.count(); ++r) CHECK(batch.documents.at(static_cast<size_t>(r)) == r * length);
  CHECK(static_cast<int64_t>(batch.documents.size()) == rows.count() + 1);
}

TEST_CASE("packed rows hold every document whole or cut at the row's length, alone with its positions",
          "[data][rows]") {
  const uint32_t seed = std::random_device{}();
  const int64_t length = GENERATE(2, 3, 16, 64);
  const int documents = GENERATE(1, 2, 30, 200);
  CAPTURE(seed, length, documents);
  const test::Folder folder;
  std::vector<int64_t> sizes = some_sizes(seed, documents, 3 * length);
  sizes.push_back(length);  // an exact fit
  sizes.push_back(length + 1);
  const auto source = numbered(folder, sizes);
  const int32_t pad = 999999;
  const Rows rows(source, Packing::documents, length, pad);
  const Batch batch = rows.batch(all_numbers(rows.count()));

  // The document of each token, and the pieces that the definition gives.
  std::vector<int64_t> end_of, begin_of;
  std::vector<int64_t> pieces;
  for (const int64_t size : sizes) {
    const auto begin = static_cast<int64_t>(end_of.size());
    for (int64_t i = 0; i < size; ++i) end_of.push_back(begin + size), begin_of.push_back(begin);
    for (int64_t left = size; left > 0; left -= length) {
      if (left > 1) pieces.push_back(std::min(left, length));
    }
  }
  std::set<int32_t> seen;
  std::vector<int64_t> filled(static_cast<size_t>(rows.count()), 0), found;
  REQUIRE(batch.documents.front() == 0);
  REQUIRE(batch.documents.back() == batch.size());
  for (size_t d = 0; d + 1 < batch.documents.size(); ++d) {
    const int64_t from = batch.documents[d], to = batch.documents[d + 1];
    REQUIRE(from < to);
    REQUIRE(from / length == (to - 1) / length);  // inside one row
    const int32_t first = batch.tokens[static_cast<size_t>(from)];
    if (first != pad) found.push_back(to - from);
    for (int64_t i = from; i < to; ++i) {
      const auto at = static_cast<size_t>(i);
      const int32_t token = batch.tokens[at];
      REQUIRE(batch.positions[at] == i - from);
      if (first == pad) {
        REQUIRE(token == pad);
        REQUIRE(batch.targets[at] == kIgnore);
        REQUIRE(to % length == 0);  // only at a row's end
        continue;
      }
      REQUIRE(token == first + (i - from));
      REQUIRE(seen.insert(token).second);
      REQUIRE(end_of[static_cast<size_t>(token)] == end_of[static_cast<size_t>(first)]);
      REQUIRE((first - begin_of[static_cast<size_t>(first)]) % length == 0);
      REQUIRE(batch.targets[at] == (token + 1 < end_of[static_cast<size_t>(token)] ? token + 1 : kIgnore));
      ++filled[static_cast<size_t>(i / length)];
    }
  }
  std::sort(filled.begin(), filled.end());
  CHECK(filled == best_fit_decreasing(pieces, length));
  std::sort(found.begin(), found.end());
  std::sort(pieces.begin(), pieces.end());
  CHECK(found == pieces);
  CHECK(rows.report().dropped == static_cast<int64_t>(end_of.size() - seen.size()));
  CHECK(rows.report().padding == rows.count() * length - static_cast<int64_t>(seen.size()));
  int64_t targets = 0;  // each token but a document's first is the target of exactly one place
  for (const int64_t size : sizes) targets += size - 1;
  CHECK(batch.target_count() == targets);
}

TEST_CASE("a batch of rows is the rows one by one", "[data][rows]") {
  const test::Folder folder;
  const auto source = numbered(folder, some_sizes(5, 60, 40));
  const Packing packing = GENERATE(Packing::stream, Packing::documents);
  const Rows rows(source, packing, 16, 0);
  const std::vector<int64_t> chosen = {3, 0, rows.count() - 1};
  const Batch together = rows.batch(chosen);
  Batch joined{3, 16, {}, {}, {}, {0}};
  for (const int64_t row : chosen) {
    const Batch one = rows.batch(std::vector{row});
    const int64_t shift = joined.documents.back();
    joined.tokens.insert(joined.tokens.end(), one.tokens.begin(), one.tokens.end());
    joined.targets.insert(joined.targets.end(), one.targets.begin(), one.targets.end());
    joined.positions.insert(joined.positions.end(), one.positions.begin(), one.positions.end());
    for (size_t i = 1; i < one.documents.size(); ++i) joined.documents.push_back(shift + one.documents[i]);
  }
  CHECK(together.tokens == joined.tokens);
  CHECK(together.targets == joined.targets);
  CHECK(together.positions == joined.positions);
  CHECK(together.documents == joined.documents);
}

TEST_CASE("validation rows are in order, spread over all, whatever micro is", "[data][rows]") {
  const test::Folder folder;
  const Rows rows(numbered(folder, {101}), Packing::stream, 10, 0);
  const auto firsts = [&](int64_t limit, int64_t micro) {
    std::vector<int32_t> all;
    for (const Batch& batch : rows.all_rows(limit, micro)) {
      CHECK(batch.rows <= micro);
      for (int64_t r = 0; r < batch.rows; ++r) all.push_back(batch.tokens[static_cast<size_t>(r * 10)] / 10);
    }
    return all;
  };
  for (const int64_t micro : {1, 3, 10, 64}) {
    CHECK(firsts(0, micro) == std::vector<int32_t>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9});
    CHECK(firsts(99, micro) == std::vector<int32_t>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9});
    CHECK(firsts(3, micro) == std::vector<int32_t>{0, 3, 6});
  }
  CHECK(rows.all_rows(7, 3).size() == 3);
}

TEST_CASE("too few tokens for one row are an error with the numbers", "[data][rows]") {
  const test::Folder folder;
  const auto few = numbered(folder, {4, 6});
  CHECK(error_of([&] {
          (void)Rows(few, Packing::stream, 10, 0);
        }).starts_with("3|data.train: 10 tokens in 2 documents give no row of 10 tokens, which takes 11"));
  CHECK(error_of([&] { (void)Rows(few, Packing::stream, 9, 0); }) == "no error");
  CHECK(error_of([&] { (void)Rows(few, Packing::documents, 10, 0); }) == "no error");
  const test::Folder other;
  CHECK(error_of([&] {
          (void)Rows(numbered(other, {1, 1}), Packing::documents, 8, 0, "data.valid");
        }) == "3|data.valid: none of the 2 documents has more than one token");
}

TEST_CASE("text, flat and indexed token files join into one stream", "[data][source]") {
  const test::Folder folder;
  folder.write("a.bin", raw<uint16_t>({10, 11, 12}));
  folder.write("b.txt", "hi");
  folder.write("c.bin", raw<uint32_t>({7, 8}));
  folder.write("c.idx.json", nlohmann::json{{"format", "longlora-tokens"},
                                            {"version", 1},
                                            {"dtype", "uint32"},
                                            {"vocab", 258},
                                            {"tokens", 2},
                                            {"tokenizer", "bytes"},
                                            {"documents", {0, 1}}}
                                 .dump());
  folder.write("d.jsonl", "{\"text\":\"yo\"}\n");
  const ByteTokenizer tokenizer;
  SourceOptions options;
  options.patterns = {folder.str("?.bin"), folder.str("*.txt"), folder.str("*.jsonl")};
  if (GENERATE(true, false))
    options.patterns = {folder.str("a.bin"), folder.str("b.txt"), folder.str("c.bin"), folder.str("d.jsonl")};
  options.tokenizer = &tokenizer;
  options.vocab = 258;
  const bool cached = GENERATE(false, true);
  if (cached) options.cache = folder / "runs/cache";
  const TokenSource source = TokenSource::open(options);
  const std::vector<int32_t> text = {'h', 'i', 257, 'y', 'o', 257};
  const bool globbed = options.patterns.size() == 3;  // else the texts stand where the first one was named
  std::vector<int32_t> expected = {10, 11, 12};
  const std::vector<int32_t> indexed = {7, 8};
  for (const auto& part : globbed ? std::vector{indexed, text} : std::vector{text, indexed}) {
    expected.insert(expected.end(), part.begin(), part.end());
  }
  for (size_t begin = 0; begin < expected.size(); ++begin) {
    for (size_t size = 0; begin + size <= expected.size(); ++size) {
      std::vector<int32_t> got(size);
      source.copy(static_cast<int64_t>(begin), got);
      CHECK(got == std::vector(expected.begin() + static_cast<long>(begin),
                               expected.begin() + static_cast<long>(begin + size)));
    }
  }
  CHECK(std::vector(source.documents().begin(), source.documents().end()) ==
        (globbed ? std::vector<int64_t>{0, 3, 4, 5, 8, 11} : std::vector<int64_t>{0, 3, 6, 9, 10, 11}));
  CHECK(fs::exists(folder / "runs/cache") == cached);
}

TEST_CASE("text is tokenized once into the cache, by whoever comes first", "[data][source]") {
  const test::Folder folder;
  std::string lines;
  for (int i = 0; i < 300; ++i) lines += nlohmann::json{{"text", std::string(50, 'a')}}.dump() + "\n";
  folder.write("a.jsonl", lines);
  ByteTokenizer tokenizer;
  tokenizer.dawdle = true;
  SourceOptions options;
  options.patterns = {folder.str("a.jsonl")};
  options.tokenizer = &tokenizer;
  options.vocab = 258;
  options.cache = folder / "cache";
  options.stop = [left = 20]() mutable { return left-- <= 0; };
  CHECK(error_of([&] { (void)TokenSource::open(options); }).starts_with("75|"));
  const int before = tokenizer.encoded;
  options.stop = [] { return false; };

  std::atomic<int64_t> tokens{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) threads.emplace_back([&] { tokens += TokenSource::open(options).tokens(); });
  for (std::thread& thread : threads) thread.join();
  CHECK(tokens == 4 * 300 * 51);
  const int after = tokenizer.encoded;
  CHECK(after - before < 300);  // goes on where it was stopped, and only one of the four does it
  CHECK(TokenSource::open(options).tokens() == 300 * 51);
  CHECK(tokenizer.encoded == after);

  folder.write("a.jsonl", lines + lines);
  CHECK(TokenSource::open(options).tokens() == 600 * 51);
  const ByteTokenizer another(false, "another");
  options.tokenizer = &another;
  CHECK(TokenSource::open(options).tokens() == 600 * 51);
  CHECK(another.encoded == 600);
}

TEST_CASE("a source that doesn't fit the model is refused", "[data][source]") {
  const test::Folder folder;
  folder.write("a.bin", raw<uint16_t>({10, 300}));
  folder.write("a.txt", "x");
  const ByteTokenizer tokenizer;
  SourceOptions options;
  options.vocab = 258;
  options.tokenizer = &tokenizer;
  options.patterns = {folder.str("a.bin")};
  CHECK(error_of([&] { (void)TokenSource::open(options); })
            .starts_with("3|" + folder.str("a.bin") +
                         ": token 300 at offset 1 (byte 2) is outside the model's vocabulary of 258"));
  options.patterns = {folder.str("a.txt")};
  options.vocab = 257;
  CHECK(error_of([&] { (void)TokenSource::open(options); }).find("token 257 at offset 1") != std::string::npos);
  options.tokenizer = nullptr;
  CHECK(error_of([&] { (void)TokenSource::open(options); }).find("there is no tokenizer") != std::string::npos);
  options.patterns = {folder.str("*.bim")};
  CHECK(error_of([&] { (void)TokenSource::open(options); }).starts_with("3|"));
}

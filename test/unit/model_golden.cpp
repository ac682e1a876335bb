// Folders that transformers and PEFT wrote, and what those libraries compute with them (scripts/goldens/model.py):
// per-token losses in float32 and bfloat16, with and without adapters, and greedy continuations.
#include <catch2/catch.hpp>

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "core/adapt/open_model.h"
#include "core/base/file.h"
#include "core/eval/generate.h"
#include "test/unit/compatibility.h"
#include "test/unit/golden_batch.h"

namespace longlora {
namespace {

const fs::path kModels = fs::path(LONGLORA_SOURCE_DIR) / "test/golden/models";

using Rows = std::vector<std::vector<double>>;

// Root of the summed squared differences to the exact losses.
double error(const std::vector<double>& losses, const Rows& exact, int64_t length) {
  double sum = 0;
  for (size_t r = 0; r < exact.size(); ++r) {
    for (size_t i = 0; i < exact[r].size(); ++i)
      sum += std::pow(losses[r * static_cast<size_t>(length) + i] - exact[r][i], 2);
  }
  return std::sqrt(sum);
}

std::vector<double> flat(const Rows& rows, int64_t length) {
  std::vector<double> all;
  for (const auto& row : rows) {
    all.insert(all.end(), row.begin(), row.end());
    all.resize(all.size() + static_cast<size_t>(length) - row.size());
  }
  return all;
}

}  // namespace

TEST_CASE("losses equal those of transformers and PEFT within twice their own rounding", "[model][golden]") {
  for (const auto& entry : fs::directory_iterator(kModels)) {
    if (!entry.is_directory()) continue;
    const auto expected = nlohmann::json::parse(read_file(entry.path() / "expected.json"));
    const data::Batch batch = test::golden_batch(expected["tokens"]);
    for (const auto& [what, value] : expected["nll"].items()) {
      if (!what.ends_with(".float64")) continue;
      const std::string subject = what.substr(0, what.find('.'));
      const Rows exact = value;
      for (const std::string dtype : {"float32", "bfloat16"}) {
        DYNAMIC_SECTION(test::compatible("model", entry.path().filename().string(), subject + " losses, " + dtype)) {
          const auto opened = adapt::open_model({.model = entry.path(),
                                                 .adapter = subject == "base" ? fs::path() : entry.path() / subject,
                                                 .dtype = dtype,
                                                 .device = "cpu",
                                                 .rope = {}});
          const at::Tensor losses = opened.llama->token_losses(batch, {}).to(at::kDouble).contiguous();
          const std::vector<double> ours(losses.data_ptr<double>(), losses.data_ptr<double>() + losses.numel());
          const Rows theirs = expected["nll"][subject + "." + dtype];
          CHECK(error(ours, exact, batch.length) <= 2 * error(flat(theirs, batch.length), exact, batch.length) + 1e-6);
        }
      }
    }
  }
}

TEST_CASE("a prompt computed in chunks gives the logits of the whole", "[model]") {
  for (const char* name : {"llama-gqa", "mistral"}) {  // mistral: with a sliding window
    const adapt::OpenedModel opened =
        adapt::open_model({.model = fs::path(LONGLORA_SOURCE_DIR) / "test/golden/models" / name,
                           .adapter = {},
                           .dtype = "float32",
                           .device = "cpu",
                           .rope = ""});
    const model::Llama& llama = *opened.llama;
    for (const int64_t length : {2047, 2048, 2049, 2060, 4095, 4100}) {
      INFO(name << ", " << length << " tokens");
      std::vector<int32_t> tokens;
      for (int64_t i = 0; i < length; ++i) tokens.push_back(static_cast<int32_t>(i * i % 89 + 3));
      model::KvCache cache = llama.make_cache(length);
      const at::Tensor chunks = llama.next_logits(tokens, cache);
      const at::Tensor whole = llama.logits(test::golden_batch({tokens}), {}).select(0, length - 1).to(at::kFloat);
      CHECK((chunks - whole).abs().max().item<double>() < 2e-4 * whole.abs().max().item<double>());
      CHECK(cache.length == length);
    }
  }
}

TEST_CASE("how much may be generated does not change what is", "[model]") {
  const fs::path folder = fs::path(LONGLORA_SOURCE_DIR) / "test/golden/models/llama";
  for (const char* rope : {"dynamic:4", "linear:4"}) {
    INFO(rope);
    const adapt::OpenedModel opened =
        adapt::open_model({.model = folder, .adapter = {}, .dtype = "float32", .device = "cpu", .rope = rope});
    const std::vector<int32_t> prompt = {5, 17, 40, 3};
    const auto some = eval::generate(*opened.llama, prompt, {}, {.max_new_tokens = 8});
    auto many = eval::generate(*opened.llama, prompt, {}, {.max_new_tokens = 150});  // beyond the original 64
    many.resize(8);
    CHECK(some == many);
  }
}

TEST_CASE("greedy generation with the cache equals transformers' continuation", "[model][golden]") {
  for (const auto& entry : fs::directory_iterator(kModels)) {
    if (!entry.is_directory()) continue;
    const auto expected = nlohmann::json::parse(read_file(entry.path() / "expected.json"));
    std::vector<int32_t> prompt = expected["tokens"][0];
    prompt.resize(expected["prompt_tokens"].get<size_t>());
    for (const auto& [what, value] : expected["greedy"].items()) {
      DYNAMIC_SECTION(test::compatible("model", entry.path().filename().string(), what + " greedy generation")) {
        const auto opened = adapt::open_model({.model = entry.path(),
                                               .adapter = what == "base" ? fs::path() : entry.path() / what,
                                               .dtype = "float32",
                                               .device = "cpu",
                                               .rope = {}});
        std::vector<int32_t> theirs = value;
        while (!theirs.empty() && std::find(opened.llama->config().eos.begin(), opened.llama->config().eos.end(),
                                            theirs.back()) != opened.llama->config().eos.end()) {
          theirs.pop_back();  // ours leaves the end token out
        }
        const eval::GenerateOptions options{.max_new_tokens = 12};
        CHECK(eval::generate(*opened.llama, prompt, opened.llama->config().eos, options) == theirs);
      }
    }
  }
}

}  // namespace longlora

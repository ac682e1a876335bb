// Merging against PEFT's own merge and against plain sums, both in float64.
#include "core/adapt/open_model.h"
#include "core/io/adapter.h"
#include "test/unit/compatibility.h"
#include "test/unit/merge_workshop.h"

using namespace longlora;
using nlohmann::ordered_json;
using test::kGolden;
using test::kQuiet;
using test::Workshop;

namespace {

// Elements that differ from the exact result rounded once to `type`.
int64_t differences(const fs::path& folder, const std::string& golden, at::ScalarType type) {
  const io::TensorStore ours(folder), exact(kGolden / golden);
  CHECK(ours.names() == exact.names());
  int64_t count = 0;
  for (const auto& [name, view] : exact.tensors()) {
    const at::Tensor mine = model::as_tensor(ours.at(name));
    CHECK(mine.scalar_type() == type);
    count += mine.ne(model::as_tensor(view).to(type)).sum().item<int64_t>();
  }
  return count;
}

}  // namespace

TEST_CASE("merging equals the exact sum rounded once to the base's bfloat16", "[merge]") {
  for (const std::string which : {"lora", "patterns"}) {
    DYNAMIC_SECTION(test::compatible("adapter", which, "merged, bfloat16")) {
      const Workshop w(which);
      const adapt::MergeReport report = adapt::merge(w.options(), kQuiet);
      CHECK(differences(w.out, "merged_" + which + ".safetensors", at::kBFloat16) == 0);
      CHECK(report.tensors == 21);
      CHECK(report.low_rank == (which == "lora" ? 8 : 5));
      CHECK(report.replaced == (which == "lora" ? 6 : 1));
      CHECK(ordered_json::parse(read_file(w.out / "config.json"))["torch_dtype"] == "bfloat16");
    }
  }
}

TEST_CASE("DoRA and a resized vocabulary merge as PEFT merges them", "[merge]") {
  for (const std::string which : {"dora", "resized"}) {
    DYNAMIC_SECTION(test::compatible("adapter", which, "merged, bfloat16")) {
      const Workshop w(which);
      (void)adapt::merge(w.options(), kQuiet);
      CHECK(differences(w.out, "merged_" + which + ".safetensors", at::kBFloat16) <= 1);  // a bound between two values
      CHECK(model::read_config(w.out).vocab_size == (which == "resized" ? 26 : 24));
    }
  }
}

TEST_CASE("LongLoRA's own adapter files merge like PEFT's, without the row of their padding token", "[merge]") {
  DYNAMIC_SECTION(test::compatible("adapter", "longlora", "merged, bfloat16")) {
    const Workshop w("longlora");
    const adapt::MergeReport report = adapt::merge(w.options(), kQuiet);
    CHECK(differences(w.out, "merged_lora.safetensors", at::kBFloat16) == 0);
    CHECK(report.replaced == 6);
    CHECK(model::read_config(w.out).vocab_size == 24);
  }
}

TEST_CASE("an adapter is attached with the weights that merging gives", "[merge]") {
  for (const std::string which : {"lora", "patterns", "dora", "resized", "longlora"}) {
    DYNAMIC_SECTION(test::compatible("adapter", which, "attached = merged")) {
      const Workshop w(which);
      adapt::MergeOptions options = w.options();
      options.dtype = io::DType::f32;
      (void)adapt::merge(options, kQuiet);
      const auto open = [](const fs::path& model, const fs::path& adapter) {
        return std::move(
            adapt::open_model({.model = model, .adapter = adapter, .dtype = "float32", .device = "cpu", .rope = ""})
                .llama);
      };
      const auto attached = open(w.base, w.adapter), merged = open(w.out, "");
      const data::Batch batch{.rows = 1,
                              .length = 6,
                              .tokens = {1, 2, 3, 5, 8, 13},
                              .targets = {2, 3, 5, 8, 13, 21},
                              .positions = {0, 1, 2, 3, 4, 5},
                              .documents = {0, 6}};
      const at::Tensor a = attached->token_losses(batch, {}), b = merged->token_losses(batch, {});
      CHECK((a - b).abs().max().item<double>() < 2e-5);
    }
  }
}

TEST_CASE("merging to float32 is within float32's rounding", "[merge]") {
  for (const std::string which : {"lora", "patterns"}) {
    const Workshop w(which);
    adapt::MergeOptions options = w.options();
    options.dtype = io::DType::f32;
    (void)adapt::merge(options, kQuiet);
    const io::TensorStore ours(w.out), exact(kGolden / ("merged_" + which + ".safetensors"));
    for (const auto& [name, view] : exact.tensors()) {
      INFO(name);
      const at::Tensor error = (model::as_tensor(ours.at(name)).to(at::kDouble) - model::as_tensor(view)).abs();
      CHECK(error.max().item<double>() <= 4e-7);  // sums of at most 5 terms below 2 in size
    }
    CHECK(model::read_config(w.out).dtype == "float32");
  }
}

namespace {

constexpr int64_t kWide = 150'000, kVocabulary = 100'000, kHidden = 16, kRank = 4;
const std::string kEmbed = "model.embed_tokens", kHead = "lm_head";

// The golden base with a wide MLP and a large vocabulary, so that these are written in several pieces.
struct Wide : Workshop {
  Workshop::Tensors base_weights;  // float64
  Wide() {
    at::manual_seed(3);
    Workshop::change_json(base / "config.json", {{"intermediate_size", kWide}, {"vocab_size", kVocabulary}});
    change_base([&](auto& t) {
      for (auto& [name, tensor] : t) {
        const bool mlp = name.find("mlp") != std::string::npos, down = name.find("down") != std::string::npos;
        if (!mlp && !name.starts_with(kEmbed) && !name.starts_with(kHead)) continue;
        const int64_t rows = mlp ? kWide : kVocabulary;
        tensor = at::randn(down ? at::IntArrayRef{kHidden, rows} : at::IntArrayRef{rows, kHidden}).to(at::kBFloat16);
        base_weights[name] = tensor.to(at::kDouble);
      }
    });
  }
  // An adapter of these tensors instead of the golden one, alpha 8.
  void bring(const std::vector<std::string>& targets, const std::vector<std::string>& modules_to_save,
             const std::function<void(Tensors&)>& fill) const {
    change_adapter([&](auto& t) {
      t.clear();
      fill(t);
    });
    Workshop::change_json(adapter / "adapter_config.json", {{"target_modules", targets},
                                                            {"modules_to_save", modules_to_save},
                                                            {"rank_pattern", ordered_json::object()},
                                                            {"alpha_pattern", ordered_json::object()}});
  }
  // LoRA of gate and up.
  void lora_on_mlp() const {
    bring({"gate_proj", "up_proj"}, {}, [](Tensors& t) {
      for (const char* layer : {"0", "1"}) {
        for (const char* module : {"gate_proj", "up_proj"}) {
          const std::string name = std::string("model.layers.") + layer + ".mlp." + module;
          t[io::lora_a_name(name)] = at::randn({kRank, kHidden});
          t[io::lora_b_name(name)] = at::randn({kWide, kRank}) * 0.3;
        }
      }
    });
  }
  // LoRA of embedding and head, which have `rows` rows where it was trained.
  void lora_on_vocabulary(int64_t rows) const {
    bring({"embed_tokens", "lm_head"}, {}, [&](Tensors& t) {
      t[io::adapter_name(kEmbed) + ".lora_embedding_A"] = at::randn({kRank, rows}) * 0.3;
      t[io::adapter_name(kEmbed) + ".lora_embedding_B"] = at::randn({kHidden, kRank});
      t[io::lora_a_name(kHead)] = at::randn({kRank, kHidden});
      t[io::lora_b_name(kHead)] = at::randn({rows, kRank}) * 0.3;
    });
  }
  // W + s B A of every module in float64, in the rows that both have; DoRA's rows scaled.
  [[nodiscard]] Tensors expected(double scale, bool dora = false) const {
    const io::Adapter lora(adapter);
    Tensors result;
    for (const auto& [module, pair] : lora.low_rank()) {
      const at::Tensor a = model::as_tensor(pair.a).to(at::kDouble), b = model::as_tensor(pair.b).to(at::kDouble);
      const at::Tensor change = pair.embedding ? at::mm(b, a).t() : at::mm(b, a);
      at::Tensor w = base_weights.at(module + ".weight").clone();
      const int64_t both = std::min(w.size(0), change.size(0));
      w.narrow(0, 0, both).add_(change.narrow(0, 0, both), scale);
      if (dora) w *= (model::as_tensor(*pair.magnitude).to(at::kDouble) / w.norm(2, {1})).unsqueeze(1);
      result[module + ".weight"] = w;
    }
    return result;
  }
  // Against these rounded once: elements that differ by more than one unit in the last place, by one, and in all.
  struct Count {
    int64_t far = 0, near = 0, all = 0;
  };
  [[nodiscard]] Count differences(const Tensors& exact) const {
    const io::TensorStore ours(out);
    Count count;
    for (const auto& [name, values] : exact) {
      INFO(name);
      const at::Tensor mine = model::as_tensor(ours.at(name)), rounded = values.to(at::kFloat).to(at::kBFloat16);
      REQUIRE(mine.sizes() == rounded.sizes());
      const at::Tensor apart = (mine.view(at::kShort).to(at::kInt) - rounded.view(at::kShort).to(at::kInt)).abs();
      count.far += apart.gt(1).sum().item<int64_t>();
      count.near += apart.eq(1).sum().item<int64_t>();
      count.all += apart.numel();
    }
    return count;
  }
};

}  // namespace

TEST_CASE("a merge is the float64 sum rounded once, save where float32 falls on the other side of a boundary",
          "[merge]") {
  const std::string which = GENERATE("plain", "rslora", "patterns", "dora", "embedding");
  INFO(which);
  const Wide w;
  if (which == "embedding") {
    w.lora_on_vocabulary(kVocabulary);
  } else {
    w.lora_on_mlp();
  }
  double scale = 2;  // alpha 8, rank 4
  if (which == "rslora") {
    Workshop::change_json(w.adapter / "adapter_config.json", {{"use_rslora", true}});
    scale = 4;
  }
  if (which == "patterns") {
    Workshop::change_json(w.adapter / "adapter_config.json", {{"alpha_pattern", {{"mlp.(gate|up)_proj", 3}}}});
    scale = 0.75;
  }
  if (which == "dora") {
    Workshop::change_json(w.adapter / "adapter_config.json", {{"use_dora", true}});
    w.change_adapter([&](auto& t) {
      const Workshop::Tensors pairs = t;
      for (const auto& [name, tensor] : pairs) {
        const size_t end = name.find(".lora_B.weight");
        if (end != std::string::npos)
          t[name.substr(0, end) + ".lora_magnitude_vector"] = at::rand({tensor.size(0)}) + 3.0;
      }
    });
  }
  (void)adapt::merge(w.options(), kQuiet);
  const Wide::Count count = w.differences(w.expected(scale, which == "dora"));
  INFO(count.near << " of " << count.all << " elements differ by one unit in the last place");
  CHECK(count.far == 0);
  CHECK(count.near * 10'000 < count.all);
  CHECK(count.all == kHidden * (which == "embedding" ? 2 * kVocabulary : 4 * kWide));
}

TEST_CASE("LoRA on another vocabulary changes the rows that both have, the others stay as they are", "[merge]") {
  for (const int64_t rows : {kVocabulary - 30'000, kVocabulary + 30'000}) {
    INFO(rows);
    const Wide w;
    w.lora_on_vocabulary(rows);
    CHECK_THAT(w.refusal(), Catch::Contains("[" + std::to_string(rows) + ", 16]") && Catch::Contains("overlap"));
    adapt::MergeOptions options = w.options();
    options.embed = io::Vocabulary::overlap;
    const adapt::MergeReport report = adapt::merge(options, kQuiet);
    CHECK(report.low_rank == 2);
    const Wide::Count count = w.differences(w.expected(2));
    CHECK(count.far == 0);
    CHECK(count.near * 10'000 < count.all);
    CHECK(model::read_config(w.out).vocab_size == kVocabulary);
    const io::TensorStore ours(w.out), base(w.base);
    for (const std::string& module : {kEmbed, kHead}) {
      const auto rest = [&](const io::TensorStore& from) {
        return io::rows_of(from.at(module + ".weight"), rows, kVocabulary).bytes;
      };
      CHECK(std::ranges::equal(rest(ours), rest(base)));
    }
  }
}

TEST_CASE("a larger embedding and head that an adapter brings whole are its values rounded once", "[merge]") {
  constexpr int64_t kRows = kVocabulary + 20'000;
  const Wide w;
  Workshop::Tensors exact;
  w.bring({"q_proj"}, {"embed_tokens", "lm_head"}, [&](Workshop::Tensors& t) {
    for (const char* layer : {"0", "1"}) {
      const std::string name = std::string("model.layers.") + layer + ".self_attn.q_proj";
      t[io::lora_a_name(name)] = at::randn({kRank, kHidden});
      t[io::lora_b_name(name)] = at::randn({kHidden, kRank});
    }
    for (const std::string& module : {kEmbed, kHead}) {
      const at::Tensor values = at::randn({kRows, kHidden});
      t[io::adapter_name(module) + ".weight"] = values;
      exact[module + ".weight"] = values.to(at::kDouble);
    }
  });
  (void)adapt::merge(w.options(), kQuiet);
  const Wide::Count count = w.differences(exact);
  CHECK(count.far + count.near == 0);
  CHECK(count.all == 2 * kRows * kHidden);
  CHECK(model::read_config(w.out).vocab_size == kRows);
}

TEST_CASE("shards, progress and quantized bases", "[merge]") {
  const Workshop w;
  adapt::MergeOptions options = w.options();
  options.max_shard_bytes = 2000;
  std::vector<int64_t> seen;
  const adapt::MergeReport report = adapt::merge(options, [&](int64_t done, int64_t total) {
    CHECK(total == 2 * 4688);
    seen.push_back(done);
  });
  CHECK(fs::exists(w.out / "model.safetensors.index.json"));
  CHECK(differences(w.out, "merged_lora.safetensors", at::kBFloat16) == 0);
  CHECK(std::is_sorted(seen.begin(), seen.end()));
  CHECK(seen.back() == report.bytes);

  const Workshop quantized;
  quantized.change_base([](auto& t) { t["model.norm.weight"] = at::ones({16}, at::kInt); });
  CHECK_THAT(quantized.refusal(), Catch::Contains("unquantized"));
}

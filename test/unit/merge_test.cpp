// Merging against PEFT's own merge in float64, and everything that must not be merged silently.
#include <ATen/ATen.h>

#include <catch2/catch.hpp>
#include <cstring>
#include <nlohmann/json.hpp>

#include "core/adapt/merge.h"
#include "core/adapt/open_model.h"
#include "core/adapt/portable.h"
#include "core/adapt/verify.h"
#include "core/base/error.h"
#include "core/io/adapter.h"
#include "core/io/context_record.h"
#include "core/model/extend.h"
#include "core/model/tensors.h"
#include "test/unit/compatibility.h"
#include "test/unit/temporary_folder.h"

using namespace longlora;
using nlohmann::ordered_json;

namespace {

const fs::path kGolden = fs::path(LONGLORA_SOURCE_DIR) / "test/golden/merge";
const auto kQuiet = [](int64_t, int64_t) {};

// A folder's files copied, its tensors held so that they can be changed and written again.
struct Workshop {
  test::TemporaryFolder temporary;
  fs::path base = temporary.path() / "base", adapter = temporary.path() / "adapter", out = temporary.path() / "out";
  explicit Workshop(const std::string& which = "lora") {
    fs::copy(kGolden / "base", base);
    fs::copy(kGolden / which, adapter);
  }
  [[nodiscard]] adapt::MergeOptions options() const { return {.model = base, .adapters = {{adapter}}, .out = out}; }

  using Tensors = std::map<std::string, at::Tensor>;
  static void change(const fs::path& file, const std::function<void(Tensors&)>& edit) {
    Tensors tensors;
    {
      const io::SafetensorsFile in(file);
      for (const auto& [name, view] : in.tensors()) tensors[name] = model::as_tensor(view).clone();
    }
    edit(tensors);
    std::vector<io::TensorSource> sources;
    for (const auto& [name, tensor] : tensors) sources.push_back(model::source(name, tensor, tensor.scalar_type()));
    io::write_safetensors(file, sources);
  }
  void change_adapter(const std::function<void(Tensors&)>& edit) const {
    change(adapter / "adapter_model.safetensors", edit);
  }
  void change_base(const std::function<void(Tensors&)>& edit) const { change(base / "model.safetensors", edit); }
  static void change_json(const fs::path& file, const ordered_json& changes) {
    ordered_json root = ordered_json::parse(read_file(file));
    root.update(changes);
    test::write_file(file, root.dump());
  }
  void record(int64_t length) const {
    recipe::Rope rope;
    rope.type = "linear";
    const model::Config config = model::extend(model::read_config(base), rope, length).config;
    io::write_context_record({.version = "0.1.0",
                              .context_length = length,
                              .max_positions = config.max_positions,
                              .rope = model::rope_to_json(config.rope),
                              .group_size = length / 4,
                              .base_model = base.string(),
                              .base_fingerprint = io::model_fingerprint(io::TensorStore(base)),
                              .recipe = {{"seed", 42}}},
                             adapter);
  }
  [[nodiscard]] std::string refusal(Exit code = Exit::input) const {
    std::string message = "not refused";
    try {
      (void)adapt::merge(options(), kQuiet);
    } catch (const Error& error) {
      CHECK(error.code() == code);
      message = error.what();
    }
    CHECK_FALSE(fs::exists(out));
    for (const auto& entry : fs::directory_iterator(temporary.path())) {
      CHECK(entry.path().filename().string().find("partial") == std::string::npos);
    }
    return message;
  }
};

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

TEST_CASE("vocabularies that do not fit together are named with both numbers", "[merge]") {
  const Workshop w("resized");
  w.change_adapter([](auto& t) { t["base_model.model.lm_head.weight"] = at::zeros({25, 16}); });
  CHECK_THAT(w.refusal(), Catch::Contains("26 rows") && Catch::Contains("25") && Catch::Contains("24"));
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

// The golden base with a wide MLP, so that its matrices are written in several pieces, and LoRA of gate and up on it.
struct Wide : Workshop {
  Workshop::Tensors base_weights;  // float64
  Wide() {
    constexpr int64_t kWide = 150'000, kHidden = 16, kRank = 4;
    at::manual_seed(3);
    Workshop::change_json(base / "config.json", {{"intermediate_size", kWide}});
    change_base([&](auto& t) {
      for (auto& [name, tensor] : t) {
        if (name.find("mlp") == std::string::npos) continue;
        const bool down = name.find("down") != std::string::npos;
        tensor = at::randn(down ? at::IntArrayRef{kHidden, kWide} : at::IntArrayRef{kWide, kHidden}).to(at::kBFloat16);
        base_weights[name] = tensor.to(at::kDouble);
      }
    });
    change_adapter([&](auto& t) {
      t.clear();
      for (const char* layer : {"0", "1"}) {
        for (const char* module : {"gate_proj", "up_proj"}) {
          const std::string name = std::string("model.layers.") + layer + ".mlp." + module;
          t[io::lora_a_name(name)] = at::randn({kRank, kHidden});
          t[io::lora_b_name(name)] = at::randn({kWide, kRank}) * 0.3;
        }
      }
    });
    Workshop::change_json(adapter / "adapter_config.json", {{"target_modules", {"gate_proj", "up_proj"}},
                                                            {"modules_to_save", nullptr},
                                                            {"rank_pattern", ordered_json::object()},
                                                            {"alpha_pattern", ordered_json::object()}});
  }
  // Compares with W + s B A in float64, DoRA's rows scaled, rounded once: elements that differ by more than one unit in the
  // last place, by one, and in all.
  struct Count {
    int64_t far = 0, near = 0, all = 0;
  };
  [[nodiscard]] Count differences(double scale, bool dora) const {
    const io::TensorStore ours(out);
    const io::Adapter lora(adapter);
    Count count;
    for (const auto& [module, pair] : lora.low_rank()) {
      at::Tensor exact = base_weights.at(module + ".weight") + scale * at::mm(model::as_tensor(pair.b).to(at::kDouble),
                                                                              model::as_tensor(pair.a).to(at::kDouble));
      if (dora) exact *= (model::as_tensor(*pair.magnitude).to(at::kDouble) / exact.norm(2, {1})).unsqueeze(1);
      const at::Tensor mine = model::as_tensor(ours.at(module + ".weight")),
                       rounded = exact.to(at::kFloat).to(at::kBFloat16);
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
  const std::string which = GENERATE("plain", "rslora", "patterns", "dora");
  INFO(which);
  const Wide w;
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
  const Wide::Count count = w.differences(scale, which == "dora");
  INFO(count.near << " of " << count.all << " elements differ by one unit in the last place");
  CHECK(count.far == 0);
  CHECK(count.near * 10'000 < count.all);
  CHECK(count.all == 4 * 150'000 * 16);
}

TEST_CASE("an adapter added and taken out again leaves the base, bit for bit", "[merge]") {
  const Workshop w;
  w.record(256);
  adapt::MergeOptions options = w.options();
  options.adapters = {{w.adapter, 0.7}, {w.adapter, -0.7}};
  (void)adapt::merge(options, kQuiet);
  const io::TensorStore base(w.base), out(w.out);
  for (const auto& [name, view] : base.tensors()) {
    INFO(name);
    CHECK(std::ranges::equal(view.bytes, out.at(name).bytes));
  }
}

TEST_CASE("weights scale LoRA, and the difference of what was trained whole", "[merge]") {
  const Workshop w;
  w.record(256);
  adapt::MergeOptions options = w.options();
  options.dtype = io::DType::f32;
  options.adapters = {{w.adapter, -0.5}};
  (void)adapt::merge(options, kQuiet);
  const io::TensorStore base(w.base), whole(kGolden / "merged_lora.safetensors"), out(w.out);
  for (const auto& [name, view] : base.tensors()) {
    INFO(name);
    const at::Tensor w0 = model::as_tensor(view).to(at::kDouble), w1 = model::as_tensor(whole.at(name)).to(at::kDouble);
    const at::Tensor got = model::as_tensor(out.at(name)).to(at::kDouble);
    CHECK((got - (w0 - 0.5 * (w1 - w0))).abs().max().item<double>() < 1e-6);
  }
  CHECK(model::read_config(w.out).rope == model::read_config(w.base).rope);  // a change taken out brings no context
}

TEST_CASE("several adapters are added up", "[merge]") {
  const Workshop w;
  const fs::path second = w.temporary.path() / "second";
  fs::copy(w.adapter, second);
  const auto only_lora = [](auto& tensors) {
    std::erase_if(tensors, [](const auto& item) { return item.first.find("lora_") == std::string::npos; });
  };
  w.change_adapter(only_lora);
  Workshop::change(second / "adapter_model.safetensors", only_lora);
  for (const fs::path& folder : {w.adapter, second}) {
    Workshop::change_json(folder / "adapter_config.json", {{"modules_to_save", nullptr}});
  }
  adapt::MergeOptions options = w.options();
  options.adapters.push_back({second});
  options.dtype = io::DType::f32;
  (void)adapt::merge(options, kQuiet);
  const io::TensorStore both(w.out), base(w.base), one(kGolden / "merged_lora.safetensors");
  const std::string q = "model.layers.1.self_attn.q_proj.weight";
  const at::Tensor w0 = model::as_tensor(base.at(q)).to(at::kDouble), w1 = model::as_tensor(one.at(q));
  const at::Tensor sum = model::as_tensor(both.at(q)).to(at::kDouble);
  CHECK((sum - (2.0 * w1 - w0)).abs().max().item<double>() < 1e-6);
}

TEST_CASE("the context settings travel with the adapter into config.json", "[merge]") {
  const Workshop w;
  w.record(256);
  test::write_file(w.base / "tokenizer_config.json", R"({"model_max_length": 64, "bos_token": "<s>"})");
  test::write_file(w.base / "tokenizer.model", "pieces");
  test::write_file(w.base / "pytorch_model.bin", "stale");
  const adapt::MergeReport report = adapt::merge(w.options(), kQuiet);
  const model::Config config = model::read_config(w.out);
  CHECK(config.rope.type == model::RopeType::linear);
  CHECK(config.rope.factor == 4.0);
  CHECK(config.rope.original_length == 64);
  CHECK(config.max_positions == 256);
  CHECK_THAT(report.context, Catch::StartsWith("256 tokens, RoPE linear, from") && Catch::EndsWith("longlora.json"));
  CHECK(read_file(w.out / "tokenizer.model") == "pieces");
  CHECK(ordered_json::parse(read_file(w.out / "tokenizer_config.json"))["model_max_length"] == 256);
  CHECK(fs::exists(w.out / "generation_config.json"));
  CHECK_FALSE(fs::exists(w.out / "pytorch_model.bin"));
}

TEST_CASE("without a longlora.json the base's context stays, and that is said", "[merge]") {
  const Workshop w;
  const adapt::MergeReport report = adapt::merge(w.options(), kQuiet);
  CHECK(model::read_config(w.out).rope == model::read_config(w.base).rope);
  CHECK_THAT(report.context, Catch::Contains("64 tokens") && Catch::Contains("no adapter has a longlora.json"));
}

TEST_CASE("an adapter of another base is said, and its embedding is taken only when asked for", "[merge]") {
  const Workshop w;
  w.record(256);
  w.change_base([](auto& t) { t["lm_head.weight"][0][0] += 1; });
  CHECK_THAT(w.refusal(Exit::usage), Catch::Contains("another base") && Catch::Contains("--embed"));
  adapt::MergeOptions options = w.options();
  options.embed = io::Vocabulary::skip;
  adapt::MergeReport report = adapt::merge(options, kQuiet);
  CHECK_THAT(report.notes.at(0), Catch::Contains("another base"));
  CHECK(report.low_rank == 8);
  CHECK(report.replaced == 5);  // the norms
  const io::TensorStore base(w.base), out(w.out), adapter(w.adapter, "adapter_model");
  const std::string embed = "model.embed_tokens.weight";
  CHECK(std::ranges::equal(out.at(embed).bytes, base.at(embed).bytes));
  CHECK(model::read_config(w.out).max_positions == 256);

  options.embed = io::Vocabulary::whole;
  options.overwrite = true;
  (void)adapt::merge(options, kQuiet);
  const at::Tensor theirs = model::as_tensor(adapter.at("base_model.model." + embed)).to(at::kBFloat16);
  CHECK(model::as_tensor(io::TensorStore(w.out).at(embed)).equal(theirs));
  options.check = [&](const fs::path& folder) { CHECK(adapt::verify_merged(options, folder).left_out.empty()); };
  report = adapt::merge(options, kQuiet);
  CHECK_THAT(report.notes.at(1), Catch::Contains("6 tensors that it brings whole"));
}

TEST_CASE("what was trained whole is weighted only against its own base", "[merge]") {
  const Workshop w;  // without a longlora.json nobody knows which that is
  adapt::MergeOptions options = w.options();
  for (const double weight : {-1.0, 0.5}) {
    options.adapters = {{w.adapter, weight}};
    CHECK_THROWS_WITH(adapt::merge(options, kQuiet), Catch::Contains("as it was after training"));
  }
  w.record(256);
  const adapt::MergeReport report = adapt::merge(options, kQuiet);
  CHECK(report.notes.empty());
  options.overwrite = true;
  options.adapters = {{w.adapter, -1}};
  CHECK_THAT(adapt::merge(options, kQuiet).notes.at(0), Catch::Contains("taken out"));
}

TEST_CASE("an adapter with fewer tokens than the model takes none away without being asked", "[merge]") {
  const Workshop w;
  w.change_adapter([](auto& t) {
    t["base_model.model.model.embed_tokens.weight"] = at::ones({20, 16});
    t["base_model.model.lm_head.weight"] = at::ones({20, 16});
  });
  CHECK_THAT(w.refusal(Exit::usage), Catch::Contains("20 rows, the model's 24") && Catch::Contains("--embed"));
  adapt::MergeOptions options = w.options();
  options.embed = io::Vocabulary::whole;
  (void)adapt::merge(options, kQuiet);
  CHECK(model::read_config(w.out).vocab_size == 20);
}

TEST_CASE("values that are no numbers stop the merge", "[merge]") {
  const Workshop w;
  w.change_adapter([](auto& t) { t["base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"][0][0] = NAN; });
  CHECK_THROWS_WITH(adapt::merge(w.options(), kQuiet),
                    Catch::Contains("q_proj.weight'") && Catch::Contains("no finite"));
}

TEST_CASE("what is no model is not overwritten", "[merge]") {
  const Workshop w;
  fs::create_directories(w.out / "pictures");
  adapt::MergeOptions options = w.options();
  options.overwrite = true;
  CHECK_THROWS_WITH(adapt::merge(options, kQuiet), Catch::Contains("no folder of a model"));
  CHECK(fs::exists(w.out / "pictures"));
}

TEST_CASE("of embeddings of other sizes the rows that both have are taken", "[merge]") {
  const Workshop w;
  const std::string embed = "model.embed_tokens.weight";
  for (const int64_t rows : {20, 30}) {
    INFO(rows);
    w.change_adapter([&](auto& t) { t["base_model.model." + embed] = at::full({rows, 16}, 0.25); });
    adapt::MergeOptions options = w.options();
    options.embed = io::Vocabulary::overlap;
    options.overwrite = true;
    (void)adapt::merge(options, kQuiet);
    const at::Tensor base = model::as_tensor(io::TensorStore(w.base).at(embed)).clone();
    base.narrow(0, 0, std::min<int64_t>(rows, 24)).fill_(0.25);
    CHECK(model::as_tensor(io::TensorStore(w.out).at(embed)).equal(base));
  }
}

TEST_CASE("values that float16 cannot hold stop the merge", "[merge]") {
  const Workshop w;
  w.change_base([](auto& t) { t["model.layers.0.mlp.up_proj.weight"][0][0] = 1e6; });
  adapt::MergeOptions options = w.options();
  options.dtype = io::DType::f16;
  CHECK_THROWS_WITH(adapt::merge(options, kQuiet), Catch::Contains("up_proj.weight' has values that float16"));
}

TEST_CASE("a merged model is compared with base + adapter before it gets its name", "[merge]") {
  const Workshop w;
  adapt::MergeOptions options = w.options();
  options.dtype = io::DType::f32;
  adapt::Verification verified;
  options.check = [&](const fs::path& folder) {
    CHECK_FALSE(fs::exists(w.out));
    verified = adapt::verify_merged(options, folder);
  };
  (void)adapt::merge(options, kQuiet);
  CHECK(verified.left_out.empty());
  CHECK(verified.tokens == 64);
  CHECK(verified.largest < 1e-4);
  const fs::path merged = w.out;
  Workshop::change(merged / "model.safetensors", [](auto& t) { t["model.norm.weight"].mul_(1.5); });
  CHECK_THROWS_WITH(adapt::verify_merged(options, merged), Catch::Contains("does not compute"));
  options.adapters.push_back({w.adapter, 1});
  CHECK_THAT(adapt::verify_merged(options, merged).left_out, Catch::Contains("several"));
}

TEST_CASE("the model card says what the model was made of", "[merge]") {
  const Workshop w;
  w.record(256);
  (void)adapt::merge(w.options(), kQuiet);
  const std::string card = read_file(w.out / "README.md");
  CHECK_THAT(card, Catch::StartsWith("---\nbase_model: base\n") &&
                       Catch::Contains("| adapter | 1 | 4 | 256 tokens |") && Catch::Contains("RoPE linear"));
}

TEST_CASE("a damaged longlora.json is refused", "[merge]") {
  const Workshop w;
  w.record(256);
  for (const ordered_json& change : std::vector<ordered_json>{{{"context_length", 0}},
                                                              {{"rope", 3}},
                                                              {{"rope", {{"rope_type", "banana"}}}},
                                                              {{"max_position_embeddings", "many"}},
                                                              {{"base_model", nullptr}}}) {
    INFO(change.dump());
    const std::string good = read_file(w.adapter / "longlora.json");
    Workshop::change_json(w.adapter / "longlora.json", change);
    CHECK_THAT(w.refusal(), Catch::Contains("longlora.json"));
    test::write_file(w.adapter / "longlora.json", good);
  }
}

TEST_CASE("parts that do not fit the base are errors that name them", "[merge]") {
  using Tensors = Workshop::Tensors;
  const std::string prefix = "base_model.model.model.";
  const std::string q0 = prefix + "layers.0.self_attn.q_proj";
  const std::vector<std::pair<std::function<void(Tensors&)>, std::string>> cases = {
      {[&](Tensors& t) { t.erase(q0 + ".lora_A.weight"); }, "q_proj' has only its B matrix"},
      {[&](Tensors& t) { t.erase(q0 + ".lora_B.weight"); }, "q_proj' has only its A matrix"},
      {[&](Tensors& t) {
         t.erase(q0 + ".lora_A.weight");
         t.erase(q0 + ".lora_B.weight");
       },
       "promises model.layers.0.self_attn.q_proj"},
      {[&](Tensors& t) { t.erase(prefix + "embed_tokens.weight"); }, "promises model.embed_tokens"},
      {[&](Tensors& t) { t.erase(prefix + "norm.weight"); }, "promises model.norm"},
      {[&](Tensors& t) {
         t[prefix + "layers.7.self_attn.q_proj.lora_A.weight"] = t[q0 + ".lora_A.weight"];
         t[prefix + "layers.7.self_attn.q_proj.lora_B.weight"] = t[q0 + ".lora_B.weight"];
       },
       "LoRA for 'model.layers.7.self_attn.q_proj'"},
      {[&](Tensors& t) { t[prefix + "something.weight"] = at::ones({3}); }, "has 'model.something.weight', which"},
      {[&](Tensors& t) { t["model.norm.weight"] = at::ones({16}); }, "does not begin with"},
      {[&](Tensors& t) { t[q0 + ".lora_magnitude_vector"] = at::ones({16}); }, "use_dora is false"},
      {[&](Tensors& t) {
         t[q0 + ".weight"] = at::ones({16, 16});
       },
       "both LoRA and a weight of its own"},
      {[&](Tensors& t) {
         t[q0 + ".lora_A.weight"] = at::ones({4, 15});
       },
       "for a matrix of [16, 15]"},
      {[&](Tensors& t) {
         t[q0 + ".lora_A.weight"] = at::ones({3, 16});
       },
       "not of rank 4"},
      {[&](Tensors& t) { t[q0 + ".lora_A.weight"] = at::ones({64}); }, "not of rank 4"},
      {[&](Tensors& t) {
         t[q0 + ".lora_A.weight"] = at::ones({4, 16}, at::kInt);
       },
       "is I32"},
      {[&](Tensors& t) {
         t[prefix + "embed_tokens.weight"] = at::ones({23, 16});
       },
       "embed_tokens has 23 rows"},
  };
  for (const auto& [edit, message] : cases) {
    INFO(message);
    const Workshop w;
    w.change_adapter(edit);
    CHECK_THAT(w.refusal(), Catch::Contains(message));
  }
}

TEST_CASE("a tied model stays tied when the adapter replaces embedding and head by the same values", "[merge]") {
  const std::string prefix = "base_model.model.";
  const Workshop w;
  Workshop::change_json(w.base / "config.json", {{"tie_word_embeddings", true}});
  w.change_adapter([&](auto& t) {
    t[prefix + "model.embed_tokens.weight"] = at::ones({24, 16});
    t[prefix + "lm_head.weight"] = at::ones({24, 16});
  });
  (void)adapt::merge(w.options(), kQuiet);
  CHECK_FALSE(io::TensorStore(w.out).contains("lm_head.weight"));
  CHECK(model::read_config(w.out).tie_embeddings);
}

TEST_CASE("a tied head keeps the base's values when the adapter replaces the embedding alone, as in PEFT", "[merge]") {
  const Workshop w;
  Workshop::change_json(w.base / "config.json", {{"tie_word_embeddings", true}});
  w.change_adapter([](auto& t) { t["base_model.model.model.embed_tokens.weight"] = at::ones({24, 16}); });
  (void)adapt::merge(w.options(), kQuiet);
  const io::TensorStore base(w.base), out(w.out);
  CHECK_FALSE(model::read_config(w.out).tie_embeddings);
  CHECK(model::as_tensor(out.at("lm_head.weight")).equal(model::as_tensor(base.at("model.embed_tokens.weight"))));
  CHECK(model::as_tensor(out.at("model.embed_tokens.weight")).eq(1).all().item<bool>());
}

TEST_CASE("LoRA on a tied embedding is refused", "[merge]") {
  const Workshop embedding("patterns");
  Workshop::change_json(embedding.base / "config.json", {{"tie_word_embeddings", true}});
  CHECK_THAT(embedding.refusal(), Catch::Contains("tied"));
}

TEST_CASE("inputs and existing folders are not written over", "[merge]") {
  const Workshop w;
  fs::create_directory(w.out);
  CHECK_THROWS_WITH(adapt::merge(w.options(), kQuiet), Catch::Contains("--overwrite"));
  adapt::MergeOptions options = w.options();
  options.overwrite = true;
  (void)adapt::merge(options, kQuiet);
  CHECK(fs::exists(w.out / "model.safetensors"));
  for (const fs::path& bad : {w.base, w.adapter / "", w.base / ".." / "adapter", w.temporary.path()}) {
    options.out = bad;
    CHECK_THROWS_WITH(adapt::merge(options, kQuiet), Catch::Contains("the output may not"));
  }
  CHECK(fs::exists(w.base / "model.safetensors"));
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

TEST_CASE("a portable adapter does what the adapters' LoRA on attention and MLP does", "[merge]") {
  const Workshop w("patterns");  // rsLoRA, rank and alpha patterns, an embedding
  adapt::MergeOptions options = w.options();
  options.adapters = {{w.adapter}, {kGolden / "lora"}};
  const adapt::PortableReport report = adapt::write_portable(options);
  CHECK(report.rank == 8);
  CHECK(report.modules == 2 * 5);      // q, k, v, o, down in both layers
  CHECK(report.left_out.size() == 3);  // an embedding's LoRA; an embedding and norms whole
  CHECK(report.rope.empty());
  const ordered_json written = ordered_json::parse(read_file(w.out / "adapter_config.json"));
  CHECK(written["r"] == 8);
  CHECK(written["lora_alpha"] == 8);
  for (const char* absent : {"rank_pattern", "alpha_pattern", "use_rslora"}) CHECK_FALSE(written.contains(absent));
  CHECK(written["modules_to_save"].is_null());

  const io::Adapter portable(w.out), patterns(w.adapter), lora(kGolden / "lora");
  for (const auto& [module, pair] : portable.low_rank()) {
    INFO(module);
    CHECK(pair.scale == 1);
    at::Tensor expected = at::zeros({pair.b.shape[0], pair.a.shape[1]}, at::kDouble);
    for (const io::Adapter* from : {&patterns, &lora}) {
      const auto found = from->low_rank().find(module);
      if (found == from->low_rank().end()) continue;
      expected.add_(
          at::mm(model::as_tensor(found->second.b).to(at::kDouble), model::as_tensor(found->second.a).to(at::kDouble)),
          found->second.scale);
    }
    const at::Tensor ours = at::mm(model::as_tensor(pair.b).to(at::kDouble), model::as_tensor(pair.a).to(at::kDouble));
    CHECK((ours - expected).abs().max().item<double>() < 1e-7);
  }
  options.adapters = {{kGolden / "dora"}};
  options.out = w.temporary.path() / "other";
  CHECK_THROWS_WITH(adapt::write_portable(options), Catch::Contains("DoRA"));
}

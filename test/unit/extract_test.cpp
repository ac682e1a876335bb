// Extracting adapters: what comes back when they are merged.
#include <cmath>
#include <set>

#include "core/io/adapter.h"
#include "test/unit/extract_pair.h"

using namespace longlora;
using namespace longlora::test;
using nlohmann::ordered_json;

TEST_CASE("extracting from a merged model gives the adapter's change back", "[extract]") {
  Pair p;
  fs::remove_all(p.tuned);
  (void)adapt::merge({.model = p.base, .adapters = {{kGolden / "lora"}}, .out = p.tuned, .dtype = io::DType::f32},
                     kQuiet);
  const adapt::ExtractReport report = adapt::extract(p.options(4), kSilent);
  const io::Adapter before(kGolden / "lora"), after(p.out);
  CHECK(after.low_rank().size() == before.low_rank().size());
  CHECK(after.config().targets == std::vector<std::string>{"k_proj", "o_proj", "q_proj", "v_proj"});
  for (const auto& [module, lora] : before.low_rank()) {
    INFO(module);
    const auto product = [&](const io::Adapter::LowRank& from) {
      return at::mm(model::as_tensor(from.b).to(at::kDouble), model::as_tensor(from.a).to(at::kDouble)) * from.scale;
    };
    const io::Adapter::LowRank& got = after.low_rank().at(module);
    const at::Tensor expected = product(lora);
    CHECK((product(got) - expected).norm().item<double>() <= 1e-5 * expected.norm().item<double>());
    // balanced: both of one size
    CHECK(model::as_tensor(got.a).norm().item<double>() ==
          Approx(model::as_tensor(got.b).norm().item<double>()).epsilon(1e-3));
  }
  CHECK(after.replaced().size() == before.replaced().size());
  for (const auto& [name, view] : before.replaced())
    CHECK(distance(model::as_tensor(after.replaced().at(name)), model::as_tensor(view)) == 0);
  int64_t unchanged = 0;
  for (const adapt::ExtractedMatrix& m : report.matrices) unchanged += m.rank == 0;
  CHECK(unchanged == 6);
  CHECK_FALSE(fs::exists(p.temporary.path() / ".out.extract"));
}

TEST_CASE("at full rank merging gives the tuned weights and its context settings", "[extract]") {
  const Pair p;
  p.tune({"proj", "embed", "lm_head", "norm"});
  Pair::change_config(p.tuned, {{"max_position_embeddings", 256},
                                {"rope_theta", 500000.0},
                                {"rope_parameters", nullptr},
                                {"rope_scaling", {{"rope_type", "linear"}, {"factor", 4.0}}}});
  const adapt::ExtractReport report = adapt::extract(p.options(), kSilent);
  CHECK(report.whole.size() == 7);
  CHECK(report.left_out.empty());
  CHECK_THAT(report.context, Catch::Contains("linear") && Catch::Contains("500000"));
  p.merge();
  const Tensors tuned = tensors_of(p.tuned), merged = tensors_of(p.merged);
  CHECK(tuned.size() == merged.size());
  for (const auto& [name, tensor] : tuned) {
    INFO(name);
    CHECK(distance(merged.at(name), tensor) <= (name.find("proj") != name.npos ? 1e-6 : 0));
  }
  const model::Config wanted = model::read_config(p.tuned), got = model::read_config(p.merged);
  CHECK(got.rope == wanted.rope);
  CHECK(got.max_positions == wanted.max_positions);
  CHECK(io::read_context_record(p.out)->base_fingerprint == io::model_fingerprint(io::TensorStore(p.base)));
}

TEST_CASE("the residuals are those of the factors as written, in their type", "[extract]") {
  const Pair p;
  p.tune({"proj"});
  for (const auto& [dtype, rank] :
       {std::pair{io::DType::f32, 3}, {io::DType::bf16, 3}, {io::DType::bf16, 16}, {io::DType::f16, 16}}) {
    adapt::ExtractOptions options = p.options(rank);
    options.dtype = dtype;
    options.overwrite = true;
    const adapt::ExtractReport report = adapt::extract(options, kSilent);
    const io::Adapter adapter(p.out);
    const Tensors base = tensors_of(p.base), tuned = tensors_of(p.tuned);
    for (const adapt::ExtractedMatrix& m : report.matrices) {
      INFO(m.module << ", " << io::name_of(dtype) << ", rank " << rank);
      const io::Adapter::LowRank& lora = adapter.low_rank().at(m.module);
      CHECK(lora.a.dtype == dtype);
      const at::Tensor d =
          tuned.at(m.module + ".weight").to(at::kDouble) - base.at(m.module + ".weight").to(at::kDouble);
      const at::Tensor kept =
          at::mm(model::as_tensor(lora.b).to(at::kDouble), model::as_tensor(lora.a).to(at::kDouble));
      CHECK(m.norm == Approx(d.norm().item<double>()).epsilon(1e-6));
      CHECK(m.residual == Approx((d - kept).norm().item<double>()).epsilon(1e-4));
    }
  }
}

TEST_CASE("merging an extracted adapter into its base says how far the result is from the tuned model", "[extract]") {
  const Pair p;
  p.tune({"proj", "norm"});
  adapt::ExtractOptions options = p.options(3);
  options.norms = false;
  (void)adapt::extract(options, kSilent);
  adapt::MergeOptions merge = {.model = p.base, .adapters = {{p.out}}, .out = p.merged, .dtype = io::DType::f32};
  const adapt::MergeReport report = adapt::merge(merge, kQuiet);
  const Tensors base = tensors_of(p.base), tuned = tensors_of(p.tuned), merged = tensors_of(p.merged);
  double change = 0, distance = 0;
  for (const auto& [name, tensor] : tuned) {
    if (name.find("proj") == name.npos) continue;
    const at::Tensor t = tensor.to(at::kDouble);
    change += (t - base.at(name).to(at::kDouble)).square().sum().item<double>();
    distance += (t - merged.at(name).to(at::kDouble)).square().sum().item<double>();
  }
  REQUIRE(report.notes.size() == 1);
  const std::string note = report.notes.front();
  CHECK_THAT(note, Catch::Contains("from '" + p.tuned.string() + "'") &&
                       Catch::EndsWith("not carried over: 5 norms that differ"));
  const size_t percent = note.find("that by ");
  REQUIRE(percent != note.npos);
  CHECK(std::stod(note.substr(percent + 8)) == Approx(100 * std::sqrt(distance / change)).epsilon(0.01));

  merge.overwrite = true;
  merge.adapters.front().weight = 0.5;  // another model than that
  CHECK(adapt::merge(merge, kQuiet).notes.empty());
  Pair::change(p.base, [](Tensors& t) { t[kQ0 + ".weight"][0][0] += 1; });
  merge.adapters.front().weight = 1;
  for (const std::string& other : adapt::merge(merge, kQuiet).notes) CHECK_THAT(other, !Catch::Contains("differs"));
}

TEST_CASE("ranks chosen per matrix stand in rank_pattern and alpha_pattern with scale 1", "[extract]") {
  const Pair p;
  p.tune({"proj"});
  adapt::ExtractOptions options = p.options(0);
  options.goal.loss = 0.15;
  const adapt::ExtractReport report = adapt::extract(options, kSilent);
  const io::Adapter adapter(p.out);
  CHECK(adapter.config().alpha == static_cast<double>(adapter.config().rank));
  CHECK(adapter.config().rank == report.rank);
  CHECK_FALSE(adapter.config().rank_pattern.empty());
  std::set<int64_t> ranks;
  for (const adapt::ExtractedMatrix& m : report.matrices) {
    const io::Adapter::LowRank& lora = adapter.low_rank().at(m.module);
    CHECK(lora.rank == m.rank);
    CHECK(lora.scale == 1);
    CHECK(m.residual * m.residual <= 0.15 * m.norm * m.norm);
    ranks.insert(m.rank);
  }
  CHECK(ranks.size() > 1);

  options.goal.max_rank = 2;
  options.overwrite = true;
  for (const adapt::ExtractedMatrix& m : adapt::extract(options, kSilent).matrices) CHECK(m.rank == 2);
}

TEST_CASE("--portable gives every module of attention and MLP one rank, and says what is left out", "[extract]") {
  const Pair p;
  p.tune({"layers.0.self_attn.q_proj", "layers.1.mlp.up_proj", "embed", "norm"});
  adapt::ExtractOptions options = p.options(0);
  options.goal.loss = 0.2;
  options.portable = true;
  const adapt::ExtractReport report = adapt::extract(options, kSilent);
  CHECK(report.left_out.size() == 2);
  CHECK(report.whole.empty());
  const ordered_json config = ordered_json::parse(read_file(p.out / "adapter_config.json"));
  CHECK(config["r"] == report.rank);
  CHECK(config["lora_alpha"] == report.rank);
  CHECK_FALSE(config.contains("rank_pattern"));
  CHECK(config["modules_to_save"].is_null());
  CHECK(config["target_modules"].size() == 7);
  const io::Adapter adapter(p.out);
  CHECK(adapter.low_rank().size() == 14);
  CHECK(fs::exists(p.out / "longlora.json"));
  for (const adapt::ExtractedMatrix& m : report.matrices) {
    const io::Adapter::LowRank& lora = adapter.low_rank().at(m.module);
    CHECK(lora.rank == report.rank);
    const at::Tensor kept = at::mm(model::as_tensor(lora.b).to(at::kDouble), model::as_tensor(lora.a).to(at::kDouble));
    CHECK(std::pow(kept.norm().item<double>(), 2) ==
          Approx(m.norm * m.norm - m.residual * m.residual).epsilon(1e-4).margin(1e-12));
  }
}

TEST_CASE("modules that do not differ get no LoRA, and the others are targeted by their whole names", "[extract]") {
  const Pair p;
  p.tune({kQ0, "v_proj"});
  const adapt::ExtractReport report = adapt::extract(p.options(4), kSilent);
  const io::Adapter adapter(p.out);
  CHECK(adapter.config().targets == std::vector<std::string>{kQ0, "v_proj"});
  CHECK(adapter.low_rank().size() == 3);
  p.merge();
}

TEST_CASE("targets are chosen by names and patterns; what else differs is said", "[extract]") {
  const Pair p;
  p.tune({"proj"});
  const auto modules = [&](const std::vector<std::string>& targets) {
    adapt::ExtractOptions options = p.options(2);
    options.targets = targets;
    options.overwrite = true;
    const adapt::ExtractReport report = adapt::extract(options, kSilent);
    const io::Adapter adapter(p.out);
    CHECK((adapter.low_rank().size() == 14 || !report.left_out.empty()));
    std::string names;
    for (const auto& [module, lora] : adapter.low_rank())
      names += module.substr(std::string("model.layers.").size()) + " ";
    return names;
  };
  CHECK(modules({"q_proj"}) == "0.self_attn.q_proj 1.self_attn.q_proj ");
  CHECK(modules({"layers.1.*.?_proj", "mlp.down_proj"}) ==
        "0.mlp.down_proj 1.mlp.down_proj 1.self_attn.k_proj 1.self_attn.o_proj 1.self_attn.q_proj 1.self_attn.v_proj ");
  CHECK(modules({kUp1}) == "1.mlp.up_proj ");
  fs::remove_all(p.out);
  adapt::ExtractOptions options = p.options(2);
  options.targets = {"q_prj"};
  CHECK_THAT(p.refusal(options, Exit::usage), Catch::Contains("q_prj") && Catch::Contains("'q_proj'"));
}

TEST_CASE("only norms differ: the adapter has one pair of zeros, since there must be one", "[extract]") {
  const Pair p;
  p.tune({"norm"});
  const adapt::ExtractReport report = adapt::extract(p.options(4), kSilent);
  CHECK(report.whole.size() == 5);
  const io::Adapter adapter(p.out);
  CHECK(adapter.low_rank().size() == 1);
  CHECK(adapter.low_rank().begin()->second.rank == 1);
  p.merge(std::nullopt);
  for (const auto& [name, tensor] : tensors_of(p.tuned)) CHECK(distance(tensors_of(p.merged).at(name), tensor) == 0);
}

TEST_CASE("embedding and head: as LoRA, whole or skipped", "[extract]") {
  const Pair p;
  p.tune({"embed", "lm_head", "q_proj"});
  adapt::ExtractOptions options = p.options(16);
  options.overwrite = true;
  options.embed = adapt::ExtractEmbed::lora;
  adapt::ExtractReport report = adapt::extract(options, kSilent);
  CHECK(report.whole.empty());
  const io::Adapter adapter(p.out);
  CHECK(adapter.low_rank().at("model.embed_tokens").embedding);
  CHECK(adapter.low_rank().at("model.embed_tokens").a.shape == std::vector<int64_t>{16, 24});
  CHECK_FALSE(adapter.low_rank().at("lm_head").embedding);
  p.merge();
  const Tensors tuned = tensors_of(p.tuned);
  Tensors merged = tensors_of(p.merged);
  for (const std::string& name : {kEmbed, kHead, kQ0 + ".weight"})
    CHECK(distance(merged.at(name), tuned.at(name)) < 1e-6);

  options.embed = adapt::ExtractEmbed::skip;
  report = adapt::extract(options, kSilent);
  CHECK_THAT(fmt::format("{} {}", report.left_out.at(0), report.left_out.at(1)),
             Catch::Contains("embedding") && Catch::Contains("lm_head"));
  CHECK(io::Adapter(p.out).replaced().empty());
}

TEST_CASE("a tied embedding is stored for both of its places, and the model stays tied", "[extract]") {
  const Pair p;
  for (const fs::path& folder : {p.base, p.tuned}) {
    Pair::change_config(folder, {{"tie_word_embeddings", true}});
    Pair::change(folder, [](Tensors& t) { t.erase(kHead); });
  }
  p.tune({"embed", "q_proj"});
  adapt::ExtractOptions options = p.options();
  options.embed = adapt::ExtractEmbed::lora;
  CHECK_THAT(p.refusal(options, Exit::usage), Catch::Contains("tied"));
  (void)adapt::extract(p.options(), kSilent);
  CHECK(io::Adapter(p.out).keeps_tied());
  p.merge(std::nullopt);
  CHECK(model::read_config(p.merged).tie_embeddings);
  CHECK_FALSE(tensors_of(p.merged).contains(kHead));
  CHECK(distance(tensors_of(p.merged).at(kEmbed), tensors_of(p.tuned).at(kEmbed)) == 0);
}

TEST_CASE("a head that the fine-tune untied is stored as its own", "[extract]") {
  const Pair p;
  Pair::change_config(p.base, {{"tie_word_embeddings", true}});
  Pair::change(p.base, [](Tensors& t) { t.erase(kHead); });
  (void)adapt::extract(p.options(), kSilent);
  p.merge(std::nullopt);
  CHECK_FALSE(model::read_config(p.merged).tie_embeddings);
  for (const std::string& name : {kEmbed, kHead})
    CHECK(distance(tensors_of(p.merged).at(name), tensors_of(p.tuned).at(name)) == 0);
}

TEST_CASE("a resized vocabulary goes in whole", "[extract]") {
  for (const int64_t rows : {26, 21}) {
    INFO(rows << " tokens");
    const Pair p;
    at::manual_seed(8);
    Pair::change(p.tuned, [&](Tensors& t) {
      for (const std::string& name : {kEmbed, kHead}) t[name] = at::randn({rows, 16}).to(at::kBFloat16);
    });
    Pair::change_config(p.tuned, {{"vocab_size", rows}});
    adapt::ExtractOptions options = p.options();
    options.embed = adapt::ExtractEmbed::lora;
    CHECK_THAT(p.refusal(options, Exit::usage), Catch::Contains(std::to_string(rows)) && Catch::Contains("24"));
    const adapt::ExtractReport report = adapt::extract(p.options(), kSilent);
    CHECK_THAT(report.notes.at(0), Catch::Contains("tokenizer"));
    p.merge(std::nullopt);
    CHECK(model::read_config(p.merged).vocab_size == rows);
    CHECK(distance(tensors_of(p.merged).at(kHead), tensors_of(p.tuned).at(kHead)) == 0);
  }
}

// What a merge adds up and carries along: weights, several adapters, other bases, context, the model card.
#include <csignal>

#include "core/adapt/portable.h"
#include "core/adapt/verify.h"
#include "core/base/signal.h"
#include "core/io/adapter.h"
#include "test/unit/merge_workshop.h"

using namespace longlora;
using nlohmann::ordered_json;
using test::kGolden;
using test::kQuiet;
using test::Workshop;

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
  CHECK(model::read_config(w.out).rope == model::read_config(w.base).rope);
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

TEST_CASE("a portable adapter that is stopped is not written", "[merge]") {
  const Workshop w;
  request_stop(SIGTERM, 0);
  CHECK_THROWS_AS(adapt::write_portable(w.options()), Stopped);
  clear_stop();
  CHECK_FALSE(fs::exists(w.out));
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

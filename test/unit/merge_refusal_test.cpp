// Everything that must not be merged silently.
#include "core/io/adapter.h"
#include "test/unit/merge_workshop.h"

using namespace longlora;
using nlohmann::ordered_json;
using test::kQuiet;
using test::Workshop;

TEST_CASE("vocabularies that do not fit together are named with both numbers", "[merge]") {
  const Workshop w("resized");
  w.change_adapter([](auto& t) { t["base_model.model.lm_head.weight"] = at::zeros({25, 16}); });
  CHECK_THAT(w.refusal(), Catch::Contains("26 rows") && Catch::Contains("25") && Catch::Contains("24"));
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

TEST_CASE("values that float16 cannot hold stop the merge", "[merge]") {
  const Workshop w;
  w.change_base([](auto& t) { t["model.layers.0.mlp.up_proj.weight"][0][0] = 1e6; });
  adapt::MergeOptions options = w.options();
  options.dtype = io::DType::f16;
  CHECK_THROWS_WITH(adapt::merge(options, kQuiet), Catch::Contains("up_proj.weight' has values that float16"));
}

TEST_CASE("the same adapter twice is taken for a slip", "[merge]") {
  const Workshop w;
  adapt::MergeOptions options = w.options();
  options.adapters = {{w.adapter}, {w.adapter / ""}};
  CHECK_THROWS_WITH(adapt::merge(options, kQuiet), Catch::Contains("is given twice") && Catch::Contains("=2"));
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

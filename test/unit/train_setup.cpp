// From a recipe to a run: what a run that goes on from an adapter takes over from it.
#include <ATen/ATen.h>

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>
#include <numeric>

#include "core/adapt/merge.h"
#include "core/adapt/open_model.h"
#include "core/adapt/verify.h"
#include "core/base/random.h"
#include "core/io/file_lock.h"
#include "core/model/tensors.h"
#include "core/train/trainer.h"
#include "test/unit/data_support.h"

namespace longlora {
namespace {

const fs::path kBase = fs::path(LONGLORA_SOURCE_DIR) / "test/golden/models/llama";

struct Workshop {
  test::Folder folder;
  Workshop() {
    std::vector<uint16_t> ids(4000);
    SplitMix random(3);
    for (uint16_t& id : ids) id = static_cast<uint16_t>(random.below(60));
    folder.write("text.bin", test::raw(ids));
  }
  // Two steps with LoRA, embedding and norms from a golden base that was trained for 32 positions or so.
  [[nodiscard]] recipe::Recipe recipe(const std::string& name) const {
    recipe::Recipe recipe;
    recipe.model.path = kBase.string();
    recipe.model.dtype = "float32";
    recipe.context.length = 4 * model::read_config(kBase).max_positions;
    recipe.context.rope.type = "linear";
    recipe.data.train = {folder.str("text.bin")};
    recipe.batch.sequences = 2;
    recipe.optimizer.lr = 1e-2;
    recipe.schedule = {.type = "constant_with_warmup", .warmup_steps = 0, .steps = 2};
    recipe.checkpoint = {.dir = folder.str(name), .every_steps = 0};
    recipe.log.tensorboard = false;
    return recipe;
  }
  // The recipe of a run on from the first one's adapter that says nothing of the context.
  [[nodiscard]] recipe::Recipe onward() const {
    recipe::Recipe onward = recipe("second");
    onward.model.adapter = folder.str("first/final");
    onward.context = {};
    return onward;
  }
};

}  // namespace

TEST_CASE("a run on from an adapter has its weights and its context", "[train]") {
  const Workshop w;
  REQUIRE(train::train(w.recipe("first"), false) == Exit::done);
  const train::Setup first = train::prepare_run(w.recipe("first"));
  const train::Setup second = train::prepare_run(w.onward());
  CHECK(second.recipe.context.length == first.recipe.context.length);
  CHECK(second.extension.config.rope == first.extension.config.rope);
  CHECK(second.extension.config.max_positions == first.extension.config.max_positions);

  const adapt::OpenedModel opened = adapt::open_model(
      {.model = kBase, .adapter = w.folder.str("first/final"), .dtype = "float32", .device = "cpu", .rope = ""});
  const data::Batch batch = first.rows->all_rows(2, 2).front();
  const at::Tensor there = opened.llama->token_losses(batch, {}), here = second.llama->token_losses(batch, {});
  CHECK((there - here).abs().max().item<double>() < 1e-5);
  CHECK((there - first.llama->token_losses(batch, {})).abs().max().item<double>() > 1e-2);  // it had learnt something

  // And again four times as far: factors count from the pre-trained length.
  recipe::Recipe further = w.onward();
  further.context.rope.type = "linear";
  further.context.length = 4 * first.recipe.context.length;
  CHECK(train::prepare_run(further).extension.config.rope.factor == 16);
}

TEST_CASE("an adapter trained on top of another one gives, with that one, the trained model", "[train][merge]") {
  constexpr double kSame = 5e-5;  // of float32 losses near 5, added up in another order
  const Workshop w;
  REQUIRE(train::train(w.recipe("first"), false) == Exit::done);
  const std::string first = w.folder.str("first/final"), second = w.folder.str("second/final");
  recipe::Recipe recipe = w.recipe("second");
  recipe.model.stack_on = {first};
  recipe.context = {};  // the first one's
  recipe.tune.rank = 4;
  recipe.tune.targets = {"q_proj", "down_proj"};
  recipe.tune.also = {"norm"};  // whole in both
  recipe.data.valid = recipe.data.train;
  recipe.eval = {.every_steps = 2, .rows = 0};
  const auto open = [&](const std::vector<fs::path>& adapters) {
    return adapt::open_model(
        {.model = kBase, .adapter = {}, .dtype = "float32", .device = "cpu", .rope = "", .stacked = adapters});
  };
  const auto largest = [&](const at::Tensor& a, const at::Tensor& b) { return (a - b).abs().max().item<double>(); };
  const train::Setup before = train::prepare_run(recipe);
  const data::Batch batch = before.rows->all_rows(2, 2).front();
  const at::Tensor on_first = open({first}).llama->token_losses(batch, {});
  CHECK(largest(before.llama->token_losses(batch, {}), on_first) < kSame);

  REQUIRE(train::train(recipe, false) == Exit::done);
  const adapt::OpenedModel both = open({first, second});
  const at::Tensor trained = both.llama->token_losses(batch, {});
  CHECK(largest(trained, on_first) > 1e-2);
  double sum = 0;
  int64_t targets = 0;
  for (const data::Batch& one : before.validation) {
    sum += both.llama->token_losses(one, {}).sum().item<double>();
    targets += one.target_count();
  }
  const std::string log = read_file(w.folder.str("second/metrics.jsonl"));
  const auto last = nlohmann::json::parse(log.substr(log.rfind('\n', log.size() - 2) + 1));
  CHECK(std::abs(sum / static_cast<double>(targets) - last["valid_loss"].get<double>()) < kSame);

  const auto merged = [&](const std::string& out, std::vector<adapt::WeightedAdapter> adapters) {
    adapt::MergeOptions options{.model = kBase, .adapters = std::move(adapters), .out = w.folder / out};
    (void)adapt::merge(options, [](int64_t, int64_t) {});
    const auto check = adapt::verify_merged(options, options.out);
    CHECK(check.left_out.empty());
    return largest(
        adapt::open_model({.model = options.out, .adapter = {}, .dtype = "float32", .device = "cpu", .rope = ""})
            .llama->token_losses(batch, {}),
        trained);
  };
  CHECK(merged("merged", {{first, 1}, {second, 1}}) < kSame);

  // It goes on from there, and a third one stands on both.
  recipe::Recipe onward = recipe;
  onward.model.adapter = second;
  CHECK(largest(train::prepare_run(onward).llama->token_losses(batch, {}), trained) < kSame);
  onward.model.adapter = "";
  onward.model.stack_on = {first, second};
  const train::Setup third = train::prepare_run(onward);
  CHECK(largest(third.llama->token_losses(batch, {}), trained) < kSame);
  CHECK(third.stacked_on.size() == 2);
  const auto record = io::read_context_record(second).value();
  CHECK((record.stacked_on.size() == 1 && record.stacked_on[0].path == first));
  CHECK(record.stacked_on[0].fingerprint == io::Adapter(first).fingerprint());

  using Catch::Contains;
  const auto error = [&](const std::function<void()>& what) { return test::error_of(what); };
  CHECK_THAT(error([&] { (void)open({second}); }), Contains("3|") && Contains("trained on its base with '" + first));
  CHECK_THAT(error([&] { (void)open({second, first}); }), Contains("3|") && Contains("give that one before it"));
  CHECK_THAT(error([&] { (void)open({first, first}); }), Contains("2|") && Contains("was not trained with"));
  CHECK_THAT(error([&] {
               (void)merged("half", {{first, 1}, {second, 0.5}});
             }),
             Contains("2|") && Contains("weight 1 each"));
  onward = w.onward();
  onward.model.stack_on = {first};
  CHECK_THAT(error([&] { (void)train::prepare_run(onward); }), Contains("2|") && Contains("was not trained with"));

  onward = w.recipe("dora");
  onward.model.path = (kBase.parent_path() / "llama3").string();
  onward.model.stack_on = {onward.model.path + "/adapter-dora"};
  CHECK_THAT(error([&] { (void)train::prepare_run(onward); }), Contains("3|") && Contains("DoRA"));

  // Resumed, it must stand on the same ones.
  recipe.checkpoint = {.dir = w.folder.str("parts"), .every_steps = 1};
  REQUIRE(train::train(recipe, false) == Exit::done);
  fs::remove_all(w.folder / "parts/final");
  fs::remove_all(w.folder / "parts/step-2");
  fs::remove_all(w.folder / "first");
  recipe::Recipe other = w.recipe("first");
  other.seed = 7;
  REQUIRE(train::train(other, false) == Exit::done);
  CHECK_THAT(error([&] { (void)train::train(recipe, true); }), Contains("3|") && Contains("other adapters"));
}

TEST_CASE("a run on from an adapter refuses what would change it", "[train]") {
  const Workshop w;
  REQUIRE(train::train(w.recipe("first"), false) == Exit::done);
  const auto error = [&](const std::function<void(recipe::Recipe&)>& change) {
    recipe::Recipe recipe = w.onward();
    change(recipe);
    return test::error_of([&] { (void)train::prepare_run(recipe); });
  };
  using Catch::Contains;
  CHECK_THAT(error([](auto& r) { r.tune.alpha = 32; }), Contains("2|") && Contains("tune.alpha"));
  CHECK_THAT(error([](auto& r) { r.tune.rank = 4; }), Contains("3|") && Contains("lora_A"));
  CHECK_THAT(error([](auto& r) { r.tune.also = {"norm"}; }), Contains("3|") && Contains("tune.also"));
  CHECK_THAT(error([](auto& r) { r.model.path = (kBase.parent_path() / "llama-gqa").string(); }), Contains("3|"));
  CHECK(error([](auto&) {}) == "no error");
}

TEST_CASE("a run is not resumed on another base, nor by two processes at once", "[train]") {
  const Workshop w;
  recipe::Recipe recipe = w.recipe("run");
  fs::copy(kBase, w.folder / "base", fs::copy_options::recursive);
  recipe.model.path = w.folder.str("base");
  recipe.schedule.steps = 4;
  recipe.checkpoint.every_steps = 2;
  REQUIRE(train::train(recipe, false) == Exit::done);
  fs::remove_all(w.folder / "run/final");
  fs::remove_all(w.folder / "run/step-4");
  {
    io::FileLock lock(w.folder / "run");
    REQUIRE(lock.try_lock());
    CHECK_THAT(test::error_of([&] { (void)train::train(recipe, true); }), Catch::Contains("another process"));
  }
  io::TensorStore store(kBase);
  std::vector<io::TensorSource> sources;
  for (const auto& [name, view] : store.tensors()) {
    const double factor = name == "model.norm.weight" ? 2 : 1;
    const at::Tensor changed = model::as_tensor(view) * factor;
    sources.push_back(model::source(name, changed, changed.scalar_type()));
  }
  io::write_safetensors(w.folder / "base/model.safetensors", std::move(sources));
  CHECK_THAT(test::error_of([&] { (void)train::train(recipe, true); }), Catch::Contains("another base"));
}

TEST_CASE("a run's folder must be empty or the run's own", "[train]") {
  const Workshop w;
  const recipe::Recipe recipe = w.recipe("first");
  w.folder.write("first/thesis.txt", "mine");
  CHECK_THAT(test::error_of([&] { (void)train::train(recipe, false); }),
             Catch::Contains("2|") && Catch::Contains("thesis.txt"));
  recipe::Recipe wrong = w.recipe("second");
  wrong.model.path = w.folder.str("nowhere");
  CHECK_THAT(test::error_of([&] { (void)train::train(wrong, false); }), Catch::Contains("nowhere"));
  CHECK_FALSE(fs::exists(w.folder / "second"));
}

TEST_CASE("weights that are not those of config.json are refused before anything is allocated", "[train]") {
  const test::Folder folder;
  const fs::path base = folder / "base";
  const auto error = [&](const nlohmann::ordered_json& changes) {
    fs::remove_all(base);
    fs::copy(kBase, base, fs::copy_options::recursive);
    nlohmann::ordered_json root = nlohmann::ordered_json::parse(read_file(base / "config.json"));
    root.update(changes);
    test::write_file(base / "config.json", root.dump());
    return test::error_of([&] {
      (void)adapt::open_model(
          {.model = base, .adapter = kBase / "adapter-all-linear", .dtype = "float32", .device = "cpu", .rope = ""});
    });
  };
  CHECK(error(nlohmann::ordered_json::object()) == "no error");
  CHECK_THAT(error({{"vocab_size", 97}}), Catch::Contains("3|") && Catch::Contains("embed_tokens"));
  CHECK_THAT(error({{"num_hidden_layers", 2147483647}}), Catch::Contains("3|") && Catch::Contains("is missing"));
  CHECK_THAT(error({{"intermediate_size", 2147483647}}), Catch::Contains("3|") && Catch::Contains("has shape"));
}

}  // namespace longlora

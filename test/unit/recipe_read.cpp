// The recipe reader: what it accepts, and that every mistake is named with its place.
#include "core/recipe/read.h"

#include <catch2/catch.hpp>

#include <random>

#include "core/base/error.h"
#include "core/recipe/located_json.h"
#include "core/recipe/print.h"

using namespace longlora;
using recipe::Recipe;
using recipe::Use;

namespace {

std::string mistakes(const std::string& text, std::vector<std::string> overrides = {}, Use use = Use::show) {
  try {
    (void)recipe::read_text(text, "r.json", overrides, use);
  } catch (const Error& error) {
    CHECK(error.code() == Exit::usage);
    return error.what();
  }
  return "";
}

Recipe with(std::vector<std::string> overrides) {
  return recipe::read_text("{}", "r.json", overrides, Use::show);
}

}  // namespace

TEST_CASE("a recipe is JSON with comments and fills what it names", "[recipe]") {
  const Recipe r = recipe::read_text(R"(// first line
{ "model": { "path": "m", "dtype": "float32" }, /* why */
  "context": { "length": 512, "rope": { "type": "linear", "factor": "auto", "theta": 5e5 } },
  "tune": { "alpha": 16, "targets": ["q_proj"], "also": [] },
  "optimizer": { "lr": 1e-3, "betas": [0, 0.5] },
  "schedule": { "steps": 2e3 },
  "data": { "train": "a.txt" },
  "log": { "tensorboard": false }, "seed": 7 }
)",
                                     "r.json", {}, Use::show);
  CHECK(r.model.path == "m");
  CHECK(r.model.dtype == "float32");
  CHECK(r.context.length == 512);
  CHECK_FALSE(r.context.rope.factor);
  CHECK(*r.context.rope.theta == 5e5);
  CHECK(r.tune.targets == std::vector<std::string>{"q_proj"});
  CHECK(r.tune.also.empty());
  CHECK(r.optimizer.lr == 1e-3);
  CHECK(r.optimizer.betas == std::vector<double>{0, 0.5});
  CHECK(r.schedule.steps == 2000);
  CHECK(r.data.train == std::vector<std::string>{"a.txt"});
  CHECK_FALSE(r.log.tensorboard);
  CHECK(r.seed == 7);
  CHECK(r.batch.sequences == Recipe{}.batch.sequences);
}

TEST_CASE("all mistakes of a recipe are reported at once with line, path and nearest key", "[recipe]") {
  const std::string text = R"({
  "modle": { "path": 1 },
  "context": {
    "lenght": 512,
    "rope": { "type": "liner" }
  },
  "batch": { "sequences": 0, "micro": 1.5 },
  "lr": 1,
  "tune": 3,
  "seed": 1,
  "optimizer": { "betas": [0.9,
     1.0], "lr": "fast" },
  "attention": { "finish": 1.5, "group_ratio": 0 },
  "log": { "tensorboard": 1, "tensorboard": true },
  "model.path": "x",
  "data": { "train": ["a", 3], "valid": {} },
  "context": { "rope": { "factor": "aut" } }
})";
  CHECK(mistakes(text, {"seeed=3", "tune.rank=0", "context.rope=1", "nothing", "schedule.steps="}) ==
        R"(22 mistakes in the recipe
r.json:2: modle: unknown key, did you mean 'model'?
r.json:4: context.lenght: unknown key, did you mean 'context.length'?
r.json:5: context.rope.type: 'liner' is not one of model, none, linear, ntk, dynamic-frozen, scaling-law, dynamic, yarn, longrope, llama3, did you mean 'linear'?
r.json:7: batch.sequences: must be at least 1, got 0
r.json:7: batch.micro: expected an integer, got 1.5
r.json:8: lr: unknown key, did you mean 'optimizer.lr'?
r.json:9: tune: is a section, not a value
r.json:12: optimizer.betas[1]: must be in [0, 1), got 1.0
r.json:12: optimizer.lr: expected a number, got "fast"
r.json:13: attention.finish: must be in [0, 1], got 1.5
r.json:13: attention.group_ratio: must be in (0, 1], got 0
r.json:14: log.tensorboard: expected true or false, got 1
r.json:14: log.tensorboard: duplicate key, it stands in line 14 already
r.json:15: model.path: unknown key; dotted paths are for overrides, here sections are nested
r.json:16: data.train[1]: expected text, got 3
r.json:16: data.valid: expected a list of text, got a section
r.json:17: context: duplicate key, it stands in line 3 already
override 'seeed=3': seeed: unknown key, did you mean 'seed'?
override 'tune.rank=0': tune.rank: must be at least 1, got 0
override 'context.rope=1': context.rope: is a section, not a value
override 'nothing': expected key=value
override 'schedule.steps=': schedule.steps: expected an integer, got "")");
}

TEST_CASE("one mistake is one line", "[recipe]") {
  CHECK(mistakes(R"({"tune": {"targets": ["q_proj",
    "k_porj"]}})") ==
        "r.json:2: tune.targets[1]: 'k_porj' is not one of q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, "
        "down_proj, "
        "did you mean 'k_proj'?");
  CHECK(mistakes(R"({"tune": {"also": ["norm", "norm"]}})") == "r.json:1: tune.also[1]: \"norm\" stands there twice");
  CHECK(mistakes(R"({"optimizer": {"betas": [0.9]}})") == "r.json:1: optimizer.betas: expected 2 entries, got 1");
  CHECK(mistakes(R"({"seed": 18446744073709551615})") ==
        "r.json:1: seed: expected an integer, got 18446744073709551615");
  CHECK(mistakes(R"({"context": {"rope": {"theta": null}}})") ==
        "r.json:1: context.rope.theta: expected a number or \"auto\", got null");
  CHECK(mistakes("[]") == "r.json:1: expected an object, { ... }");
}

TEST_CASE("broken JSON is reported with its line", "[recipe]") {
  CHECK_THAT(mistakes("{\n  \"seed\": 1,\n}\n"), Catch::StartsWith("r.json:3: syntax error"));
  CHECK_THAT(mistakes("{\n \"seed\": 1\n \"tune\": {} }"), Catch::StartsWith("r.json:3: syntax error"));
  CHECK_THAT(mistakes(""), Catch::StartsWith("r.json:1: syntax error"));
  CHECK_THAT(mistakes("{} {}"), Catch::StartsWith("r.json:1: syntax error"));
  CHECK_THAT(mistakes("{\"seed\":\n 1e999}"), Catch::StartsWith("r.json:2: number overflow"));
  CHECK(mistakes(std::string(100000, '[')) == "r.json:1: nested too deeply");
}

TEST_CASE("no damage to a recipe does more than make mistakes", "[recipe]") {
  const unsigned seed = std::random_device()();
  INFO("seed " << seed);
  std::mt19937 random(seed);
  const std::string whole = recipe::to_json(Recipe{}), marks = "{}[]\",:/*0-.e\n\\a\x80";
  for (int round = 0; round < 500; ++round) {
    std::string text = whole;
    for (unsigned i = random() % 4 + 1; i > 0; --i) {
      const size_t at = random() % text.size();
      if (random() % 2 == 0) {
        text[at] = marks[random() % marks.size()];
      } else {
        text.erase(at, random() % 20);
      }
    }
    try {
      (void)recipe::read_text(text, "r.json", {}, Use::show);
    } catch (const Error& error) {
      CHECK(error.code() == Exit::usage);
    }
  }
}

TEST_CASE("values know their lines, also numbers before a line break", "[recipe]") {
  const recipe::Node root = recipe::parse_located("// c\n{ \"a\": 1\n, \"b\":\n [2,\n3\n], \"c\": \"x\"\n}");
  REQUIRE(root.children.size() == 3);
  CHECK(root.line == 2);
  CHECK(root.children[0].line == 2);
  CHECK(root.children[1].line == 4);
  CHECK(root.children[1].children[0].line == 4);
  CHECK(root.children[1].children[1].line == 5);
  CHECK(root.children[2].line == 6);
  CHECK(root.children[1].list() == nlohmann::json::array({2, 3}));
}

TEST_CASE("overrides are JSON where they are JSON and text otherwise, from left to right", "[recipe]") {
  const Recipe r =
      with({"optimizer.lr=1e-4", "optimizer.lr=2e-4", "data.train=[\"a\",\"b=c\"]", "data.valid=v=1.txt",
            "checkpoint.dir=runs/a=b", "model.path=7", "context.rope.type=linear", "context.rope.factor=auto",
            "log.tensorboard=false", "tune.also=[]", "model.dtype=\"float32\""});
  CHECK(r.optimizer.lr == 2e-4);
  CHECK(r.data.train == std::vector<std::string>{"a", "b=c"});
  CHECK(r.data.valid == std::vector<std::string>{"v=1.txt"});
  CHECK(r.checkpoint.dir == "runs/a=b");
  CHECK(r.model.path == "7");
  CHECK_FALSE(r.context.rope.factor);
  CHECK_FALSE(r.log.tensorboard);
  CHECK(r.tune.also.empty());
  CHECK(r.model.dtype == "float32");
}

TEST_CASE("a recipe that is neither a file nor shipped is named with the nearest shipped one", "[recipe]") {
  try {
    (void)recipe::read("longlora-7b-8", {}, Use::show);
    FAIL("was read");
  } catch (const Error& error) {
    CHECK(error.code() == Exit::input);
    CHECK_THAT(error.what(), Catch::Contains("did you mean 'longlora-7b-8k'?"));
  }
}

TEST_CASE("rules are reported together, where the key was given", "[recipe]") {
  CHECK(mistakes(R"({
  "model": { "path": "m",
             "init": "i" },
  "batch": { "sequences": 6, "micro": 4 }
})",
                 {"schedule.steps=10", "attention.group_size=7"}) == R"(4 mistakes in the recipe
r.json:3: model.init: model.path is given too; choose one
override 'attention.group_size=7': attention.group_size: must be even
r.json:4: batch.micro: 4 does not divide batch.sequences 6
r.json: schedule.warmup_steps: is more than schedule.steps 10)");
}

TEST_CASE("each rule refuses its case", "[recipe]") {
  const auto refused = [](std::vector<std::string> overrides) { return mistakes("{}", std::move(overrides)); };
  CHECK_THAT(refused({"context.rope.factor=4"}), Catch::Contains("context.rope.factor: needs a context.rope.type"));
  CHECK_THAT(refused({"context.rope.type=linear", "context.rope.beta_fast=4"}),
             Catch::Contains("needs context.rope.type yarn"));
  CHECK_THAT(refused({"context.rope.type=ntk", "context.rope.theta=4"}), Catch::Contains("other than ntk"));
  CHECK_THAT(refused({"context.rope.type=longrope", "context.rope.long_factor=[1,2]", "context.rope.short_factor=[1]"}),
             Catch::Contains("as many entries"));
  CHECK_THAT(refused({"attention.pattern=full", "attention.finish=0.2"}),
             Catch::Contains("needs attention.pattern s2"));
  CHECK_THAT(refused({"context.length=64", "attention.group_size=128"}),
             Catch::Contains("larger than context.length 64"));
  CHECK_THAT(refused({"context.length=7"}), Catch::Contains("groups of 1 tokens"));
  CHECK_THAT(
      refused({"tune.mode=full", "tune.dropout=0.1", "tune.rank=4"}),
      Catch::Contains("tune.dropout: needs tune.mode lora") && Catch::Contains("tune.rank: needs tune.mode lora"));
  CHECK_THAT(refused({"tune.targets=[]", "tune.also=[]"}), Catch::Contains("nothing would be trained"));
  CHECK_THAT(refused({"model.adapter=a"}), Catch::Contains("model.adapter: needs model.path"));
  CHECK_THAT(refused({"eval.every_steps=5"}), Catch::Contains("eval.every_steps: needs data.valid"));
  CHECK(refused({"tune.mode=full"}).empty());
  CHECK(refused({"attention.pattern=full"}).empty());
  CHECK(refused({"model.path=m", "context.length=8", "attention.finish=1"}).empty());
}

TEST_CASE("what is for sft alone is refused in train, and samples of sft are packed whole", "[recipe][sft]") {
  const std::vector<std::string> complete = {"model.path=m", "data.train=t", "checkpoint.dir=d"};
  const auto more = [&](std::vector<std::string> overrides) {
    overrides.insert(overrides.end(), complete.begin(), complete.end());
    return overrides;
  };
  for (const std::string one : {"sft.format=llama-2", "sft.too_long=drop", "sft.empty=drop"}) {
    INFO(one);
    CHECK_THAT(mistakes("{}", more({one}), Use::train), Catch::Contains("has no effect in 'longlora train'"));
    CHECK(mistakes("{}", more({one}), Use::sft).empty());
  }
  CHECK_THAT(mistakes("{}", {}, Use::sft), Catch::StartsWith("3 mistakes"));
  CHECK_THAT(mistakes(R"({ "data": { "packing": "stream" } })", complete, Use::sft),
             Catch::Contains("r.json:1: data.packing: must be documents in sft"));
  CHECK(recipe::read_text("{}", "r.json", complete, Use::sft).data.packing == "documents");
  CHECK(recipe::read_text("{}", "r.json", complete, Use::train).data.packing == "stream");
}

TEST_CASE("training needs a model, data and a folder, and only what this build can do", "[recipe]") {
  CHECK(mistakes("{}", {}, Use::train) == R"(3 mistakes in the recipe
r.json: model.path: is empty; name the base model's folder (or model.init to start from random weights)
r.json: data.train: is empty; name the files to train on
r.json: checkpoint.dir: is empty; name the folder of the run)");
  const std::vector<std::string> complete = {"model.path=m", "data.train=t", "checkpoint.dir=d"};
  CHECK(mistakes("{}", complete, Use::train).empty());
  for (const std::string later : {"model.quantize=nf4", "memory.offload=model"}) {
    auto overrides = complete;
    overrides.push_back(later);
    INFO(later);
    CHECK_THAT(mistakes("{}", overrides, Use::train), Catch::Contains("this build of longlora cannot do that"));
    CHECK(mistakes("{}", overrides, Use::show).empty());
  }
}

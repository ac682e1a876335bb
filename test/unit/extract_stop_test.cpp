// Extractions that are refused, stopped or killed: nothing is lost, nothing is left half done.
#include <signal.h>

#include <cmath>

#include "test/unit/extract_pair.h"
#include "test/unit/process.h"

using namespace longlora;
using namespace longlora::test;

TEST_CASE("models that do not fit together are refused with the key or the tensor", "[extract]") {
  const std::vector<std::pair<std::function<void(const Pair&)>, std::string>> cases = {
      {[](const Pair& p) {
         Pair::change_config(p.tuned, {{"rms_norm_eps", 1e-3}});
       },
       "'rms_norm_eps' is 0.001"},
      {[](const Pair& p) {
         Pair::change_config(p.tuned, {{"num_hidden_layers", 3}});
       },
       "'num_hidden_layers' is 3"},
      {[](const Pair& p) {
         Pair::change_config(p.tuned, {{"num_attention_heads", 2}, {"head_dim", 8}});
       },
       "'num_attention_heads' is 2"},
      {[](const Pair& p) { Pair::change(p.tuned, [](Tensors& t) { t.erase(kQ0 + ".weight"); }); },
       "lacks tensor '" + kQ0 + ".weight'"},
      {[](const Pair& p) { Pair::change(p.tuned, [](Tensors& t) { t["extra.weight"] = at::ones({3}); }); },
       "has a tensor 'extra.weight'"},
      {[](const Pair& p) { Pair::change(p.tuned, [](Tensors& t) {
                             t[kQ0 + ".weight"] = at::ones({16, 15});
                           }); },
       "is [16, 15]"},
      {[](const Pair& p) { Pair::change(p.tuned, [](Tensors& t) {
                             t[kEmbed] = at::ones({24, 17});
                           }); }, "is [24, 17]"},
      {[](const Pair& p) { Pair::change(p.tuned, [](Tensors& t) { t[kNorm] = at::ones({16}, at::kInt); }); },
       "unquantized"},
      {[](const Pair& p) {
         for (const fs::path& folder : {p.base, p.tuned}) {
           Pair::change(folder, [&](Tensors& t) { t[kQ0 + ".bias"] = at::full({16}, folder == p.base ? 0.0F : 1.0F); });
         }
       },
       kQ0 + ".bias' differs"},
      {[](const Pair&) {}, "nothing to extract"},
  };
  for (const auto& [edit, message] : cases) {
    INFO(message);
    const Pair p;
    edit(p);
    CHECK_THAT(p.refusal(p.options()), Catch::Contains(message));
  }
}

TEST_CASE("a stopped extraction goes on to the same files", "[extract]") {
  const Pair p;
  p.tune({"proj", "norm"});
  adapt::ExtractOptions options = p.options(0);
  options.goal.loss = 0.1;
  (void)adapt::extract(options, kSilent);
  const fs::path whole = p.temporary.path() / "whole", work = p.temporary.path() / ".out.extract";
  fs::rename(p.out, whole);
  int at = 0, stop_at = 5;
  const auto stop = [&](int64_t, int64_t, const std::string&) {
    if (at++ == stop_at) throw Error(Exit::interrupted, "stopped");
  };
  CHECK_THROWS_AS(adapt::extract(options, stop), Error);
  CHECK_FALSE(fs::exists(p.out));
  CHECK(fs::exists(work));

  adapt::ExtractOptions other = options;
  other.goal.loss = 0.2;
  CHECK_THROWS_WITH(adapt::extract(other, kSilent),
                    Catch::Contains(".out.extract") && Catch::Contains("loss 0.1, now 0.2"));
  CHECK(fs::exists(work));

  at = 0, stop_at = 9;
  CHECK_THROWS_AS(adapt::extract(options, stop), Error);
  // A factor that was half written when the machine went down is made again.
  const fs::path damaged = work / (kQ0 + ".safetensors");
  fs::resize_file(damaged, fs::file_size(damaged) / 2);
  test::write_file(work / "model.layers.0.self_attn.v_proj.safetensors", "");
  fs::create_directory(p.temporary.path() / ".out.partial");  // of a run that was killed at the very end
  const adapt::ExtractReport report = adapt::extract(options, kSilent);
  CHECK(report.resumed == 7);
  CHECK(report.matrices.size() == 14);
  check_same_files(p.out, whole);
  CHECK(files_of(p.temporary.path()) == std::vector<std::string>{"base", "out", "tuned", "whole"});
}

TEST_CASE("an error in the input loses no finished matrix", "[extract]") {
  const Pair p;
  p.tune({"proj"});
  const fs::path work = p.temporary.path() / ".out.extract";
  const auto finished = [&] {
    std::map<std::string, std::string> files;
    for (const std::string& name : files_of(work)) {
      if (name.ends_with(".safetensors")) files[name] = read_file(work / name);
    }
    return files;
  };
  const auto error = [&] {
    try {
      (void)adapt::extract(p.options(4), kSilent);
    } catch (const Error& thrown) {
      CHECK(thrown.code() == Exit::input);
      return std::string(thrown.what());
    }
    return std::string("none");
  };
  Pair::change(p.tuned, [](Tensors& t) { t[kUp1 + ".weight"][3][2] = std::nan(""); });
  CHECK_THAT(error(), Catch::Contains("'" + kUp1 + "' holds values that are no finite numbers") &&
                          Catch::Contains("finished matrices are kept in " + work.string()));
  const auto before = finished();
  CHECK(before.size() == 9);  // all of the first layer, two of the second
  CHECK_THAT(error(), Catch::Contains(kUp1));
  CHECK(finished() == before);
  CHECK_FALSE(fs::exists(p.out));

  const Pair first;  // nothing was finished: nothing is left
  Pair::change(first.tuned, [](Tensors& t) { t["model.layers.0.mlp.down_proj.weight"][3][2] = std::nan(""); });
  CHECK_THAT(first.refusal(first.options()), Catch::EndsWith("no finite numbers"));
}

TEST_CASE("a signal or a kill in the middle of extract-lora, and the same command again", "[extract][program]") {
  const Pair p;
  Pair::change_config(p.base, {{"num_hidden_layers", 40}});
  Pair::change_config(p.tuned, {{"num_hidden_layers", 40}});
  at::manual_seed(9);
  for (const fs::path& folder : {p.base, p.tuned}) {
    Pair::change(folder, [](Tensors& t) {
      const Tensors before = t;
      for (const auto& [name, tensor] : before) {
        if (!name.starts_with("model.layers.1.")) continue;
        for (int layer = 2; layer < 40; ++layer)
          t[fmt::format("model.layers.{}.{}", layer, name.substr(15))] = at::randn_like(tensor);
      }
    });
  }
  const auto extract = [&](const fs::path& out) {
    return start({"extract-lora", "--base", p.base, "--tuned", p.tuned, "--out", out, "--rank", "4"});
  };
  const fs::path whole = p.temporary.path() / "whole", work = p.temporary.path() / ".out.extract";
  REQUIRE(exit_code(extract(whole)) == 0);
  for (const int number : {SIGTERM, SIGKILL}) {
    int code = 0;
    for (int attempt = 0; code == 0 && attempt < 20; ++attempt) {  // 0: it was done before the signal came
      fs::remove_all(p.out);
      const pid_t pid = extract(p.out);
      while (!fs::exists(work / (kQ0 + ".safetensors")) && !fs::exists(p.out)) ::usleep(500);
      ::kill(pid, number);
      code = exit_code(pid);
    }
    CAPTURE(number);
    CHECK(code == (number == SIGKILL ? 128 + SIGKILL : 75));
    CHECK_FALSE(fs::exists(p.out));
    CHECK(exit_code(extract(p.out)) == 0);
    check_same_files(p.out, whole);
    CHECK_FALSE(fs::exists(work));
    fs::remove_all(p.out);
  }
}

TEST_CASE("extract-lora writes over nothing", "[extract]") {
  const Pair p;
  p.tune({"q_proj"});
  fs::create_directory(p.out);
  CHECK_THROWS_WITH(adapt::extract(p.options(), kSilent), Catch::Contains("--overwrite"));
  adapt::ExtractOptions options = p.options();
  for (const fs::path& bad : {p.base, p.tuned / "", p.temporary.path()}) {
    options.out = bad;
    options.overwrite = true;
    CHECK_THROWS_WITH(adapt::extract(options, kSilent), Catch::Contains("the output may not"));
  }
  CHECK(fs::exists(p.base / "model.safetensors"));
  CHECK(files_of(p.temporary.path()) == std::vector<std::string>{"base", "out", "tuned"});
}

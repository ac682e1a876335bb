// Extracting adapters: what comes back when they are merged, what is refused, and runs that were stopped.
#include <ATen/ATen.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/adapt/extract.h"
#include "core/adapt/merge.h"
#include "core/base/error.h"
#include "core/io/adapter.h"
#include "core/io/context_record.h"
#include "core/model/config.h"
#include "core/model/tensors.h"
#include "test/unit/temporary_folder.h"

using namespace longlora;
using nlohmann::ordered_json;

namespace {

const fs::path kGolden = fs::path(LONGLORA_SOURCE_DIR) / "test/golden/merge";
const auto kQuiet = [](int64_t, int64_t) {};
const auto kSilent = [](int64_t, int64_t, const std::string&) {};
const std::string kEmbed = "model.embed_tokens.weight", kHead = "lm_head.weight", kNorm = "model.norm.weight";
const std::string kQ0 = "model.layers.0.self_attn.q_proj", kUp1 = "model.layers.1.mlp.up_proj";

using Tensors = std::map<std::string, at::Tensor>;

Tensors tensors_of(const fs::path& folder) {
  const io::TensorStore store(folder);
  Tensors tensors;
  for (const auto& [name, view] : store.tensors()) tensors[name] = model::as_tensor(view).clone();
  return tensors;
}

double distance(const at::Tensor& a, const at::Tensor& b) {
  return (a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>();
}

// A base and a tuned model, at first the same: llama of 2 layers, hidden 16, 24 tokens, bfloat16.
struct Pair {
  test::TemporaryFolder temporary;
  fs::path base = temporary.path() / "base", tuned = temporary.path() / "tuned", out = temporary.path() / "out";
  fs::path merged = temporary.path() / "merged";
  Pair() {
    fs::copy(kGolden / "base", base);
    fs::copy(kGolden / "base", tuned);
  }
  static void change(const fs::path& folder, const std::function<void(Tensors&)>& edit) {
    Tensors tensors = tensors_of(folder);
    edit(tensors);
    std::vector<io::TensorSource> sources;
    for (const auto& [name, tensor] : tensors) sources.push_back(model::source(name, tensor, tensor.scalar_type()));
    io::write_safetensors(folder / "model.safetensors", sources);
  }
  static void change_config(const fs::path& folder, const ordered_json& changes) {
    ordered_json root = ordered_json::parse(read_file(folder / "config.json"));
    root.update(changes);
    test::write_file(folder / "config.json", root.dump());
  }
  // Random changes of every weight whose name contains one of these.
  void tune(const std::vector<std::string>& names, uint64_t seed = 5) const {
    at::manual_seed(seed);
    change(tuned, [&](Tensors& tensors) {
      for (auto& [name, tensor] : tensors) {
        for (const std::string& part : names) {
          if (name.find(part) != std::string::npos) tensor = tensor + 0.1 * at::randn_like(tensor);
        }
      }
    });
  }
  [[nodiscard]] adapt::ExtractOptions options(int64_t rank = 16) const {
    return {.base = base, .tuned = tuned, .out = out, .goal = {.max_rank = rank}};
  }
  void merge(std::optional<io::DType> dtype = io::DType::f32) const {
    (void)adapt::merge({.model = base, .adapters = {{out}}, .out = merged, .dtype = dtype, .overwrite = true}, kQuiet);
  }
  [[nodiscard]] std::string refusal(const adapt::ExtractOptions& options, Exit code = Exit::input) const {
    std::string message = "not refused";
    try {
      (void)adapt::extract(options, kSilent);
    } catch (const Error& error) {
      CHECK(error.code() == code);
      message = error.what();
    }
    CHECK_FALSE(fs::exists(out));
    CHECK_FALSE(fs::exists(temporary.path() / ".out.extract"));
    return message;
  }
};

std::vector<std::string> files_of(const fs::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

void check_same_files(const fs::path& a, const fs::path& b) {
  CHECK(files_of(a) == files_of(b));
  for (const std::string& name : files_of(a)) {
    INFO(name);
    CHECK(read_file(a / name) == read_file(b / name));
  }
}

}  // namespace

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
  const auto start = [&](const fs::path& out) {
    std::vector<std::string> words = {LONGLORA_BINARY,  "extract-lora", "--base",     p.base.string(), "--tuned",
                                      p.tuned.string(), "--out",        out.string(), "--rank",        "4"};
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    const pid_t pid = ::fork();
    if (pid == 0) {
      const int nowhere = ::open("/dev/null", O_WRONLY);
      ::dup2(nowhere, STDOUT_FILENO);
      ::dup2(nowhere, STDERR_FILENO);
      ::execv(argv[0], argv.data());
      ::_exit(127);
    }
    return pid;
  };
  const auto exit_code = [](pid_t pid) {
    int status = 0;
    while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  };
  const fs::path whole = p.temporary.path() / "whole", work = p.temporary.path() / ".out.extract";
  REQUIRE(exit_code(start(whole)) == 0);
  for (const int number : {SIGTERM, SIGKILL}) {
    int code = 0;
    for (int attempt = 0; code == 0 && attempt < 20; ++attempt) {  // 0: it was done before the signal came
      fs::remove_all(p.out);
      const pid_t pid = start(p.out);
      while (!fs::exists(work / (kQ0 + ".safetensors")) && !fs::exists(p.out)) ::usleep(500);
      ::kill(pid, number);
      code = exit_code(pid);
    }
    CAPTURE(number);
    CHECK(code == (number == SIGKILL ? 128 + SIGKILL : 75));
    CHECK_FALSE(fs::exists(p.out));
    CHECK(exit_code(start(p.out)) == 0);
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

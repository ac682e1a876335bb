#include "core/train/checkpoint.h"

#include <algorithm>
#include <charconv>
#include <map>

#include "core/adapt/adapter_model.h"
#include "core/base/error.h"
#include "core/base/file.h"
#include "core/base/hash.h"
#include "core/base/log.h"
#include "core/model/tensors.h"
#include "core/recipe/print.h"

namespace longlora::train {

int64_t step_of(const fs::path& folder) {
  const std::string name = folder.filename().string();
  int64_t step = -1;
  if (!name.starts_with("step-")) return -1;
  const auto [end, fault] = std::from_chars(name.data() + 5, name.data() + name.size(), step);
  return fault == std::errc() && end == name.data() + name.size() ? step : -1;
}

namespace {

constexpr const char* kState = "state.json";
constexpr const char* kOptimizer = "optimizer.safetensors";

// Complete checkpoints, oldest first. What is not complete has another name (core/base/file.h).
std::map<int64_t, fs::path> checkpoints(const fs::path& dir) {
  std::map<int64_t, fs::path> found;
  std::error_code ec;
  for (const auto& entry : fs::directory_iterator(dir, ec)) {
    const int64_t step = step_of(entry.path());
    if (step >= 0 && fs::exists(entry.path() / kState)) found[step] = entry.path();
  }
  return found;
}

std::string hash_of(const fs::path& file) {
  const MappedFile map(file);
  return fingerprint({reinterpret_cast<const char*>(map.bytes().data()), map.bytes().size()});
}

void save_moments(const Trained& trained, const fs::path& file) {
  std::vector<io::TensorSource> sources;
  for (const Slice& slice : trained.slices()) {
    const auto add = [&](const char* name, const at::Tensor& moment) {
      const at::IntArrayRef shape = slice.parameter->value.sizes();
      if (trained.sliced()) {
        sources.push_back(model::source(slice.parameter->name + name, shape, moment.scalar_type(),
                                        [&trained, moment, shape] { return trained.whole(moment, shape); }));
      } else {
        sources.push_back(
            model::source(slice.parameter->name + name, trained.whole(moment, shape), moment.scalar_type()));
      }
    };
    add(".first", slice.first);
    add(".second", slice.second);
  }
  io::write_safetensors(file, std::move(sources));
}

void load_moments(Trained& trained, const fs::path& file) {
  const io::TensorStore store(file);
  for (const Slice& slice : trained.slices()) {
    const model::Parameter& p = *slice.parameter;
    slice.first.copy_(p.cut.of(model::as_tensor(store.at(p.name + ".first"))));
    slice.second.copy_(p.cut.of(model::as_tensor(store.at(p.name + ".second"))));
  }
}

void flatten(const nlohmann::ordered_json& json, const std::string& path, std::map<std::string, std::string>& out) {
  if (!json.is_object()) {
    out[path] = json.dump();
    return;
  }
  for (const auto& [key, value] : json.items()) flatten(value, path.empty() ? key : path + "." + key, out);
}

}  // namespace

std::string other_than(const nlohmann::ordered_json& saved, const recipe::Recipe& recipe) {
  // A key that the run's program did not know had its default.
  std::map<std::string, std::string> before, now, defaults;
  flatten(nlohmann::ordered_json::parse(recipe::to_json(recipe::Recipe{})), "", defaults);
  flatten(saved, "", before);
  flatten(nlohmann::ordered_json::parse(recipe::to_json(recipe)), "", now);
  std::string differences;
  before.insert(defaults.begin(), defaults.end());
  for (const auto& [key, value] : now) {
    const bool free = key.starts_with("log.") || key.starts_with("checkpoint.") || key.starts_with("parallel.");
    if (free || before[key] == value) continue;
    differences += fmt::format("\n  {}: {} now, {} in the run", key, value, before[key]);
  }
  return differences;
}

void save_checkpoint(const recipe::Recipe& recipe, const RunState& state, const Trained& trained,
                     const SaveModel& save_model) {
  const fs::path dir = recipe.checkpoint.dir;
  const fs::path target = dir / fmt::format("step-{}", state.step);
  const at::Tensor there = at::full({1}, fs::exists(target / kState) ? 1 : 0, at::kLong);
  if (trained.sliced()) trained.group().broadcast(there, 0);
  if (*there.data_ptr<int64_t>() != 0) return;  // saved by the run that this one resumed
  if (trained.group().rank() != 0) {
    save_model({}, at::kFloat);
    save_moments(trained, {});
    return;
  }
  AtomicFolder folder(target, true);
  save_model(folder.path(), at::kFloat);
  save_moments(trained, folder.path() / kOptimizer);
  nlohmann::ordered_json json = {{"format", 1},
                                 {"step", state.step},
                                 {"tokens", state.tokens},
                                 {"cursor", state.cursor},
                                 {"compute", state.manner.compute},
                                 {"result_dtype", state.manner.result_dtype},
                                 {"recipe", nlohmann::ordered_json::parse(recipe::to_json(recipe))},
                                 {"files", nlohmann::ordered_json::object()}};
  if (state.unlogged) json["unlogged"] = state.unlogged->to_json();
  std::vector<fs::path> files(fs::directory_iterator(folder.path()), {});
  std::sort(files.begin(), files.end());
  for (const fs::path& file : files) {
    if (fs::is_regular_file(file)) json["files"][file.filename().string()] = hash_of(file);
  }
  write_file_atomically(folder.path() / kState, json.dump(2) + "\n");
  folder.commit();

  auto all = checkpoints(dir);
  while (recipe.checkpoint.keep > 0 && static_cast<int64_t>(all.size()) > recipe.checkpoint.keep) {
    const fs::path& old = all.begin()->second;
    const fs::path away = dir / ("." + old.filename().string() + ".old");  // no half of one under a checkpoint's name
    std::error_code ec;
    fs::rename(old, away, ec);
    if (!ec) fs::remove_all(away, ec);
    if (ec) log::warn("{}: an old checkpoint could not be removed: {}", old.string(), ec.message());
    all.erase(all.begin());
  }
}

void sweep_checkpoints(const fs::path& dir) {
  std::error_code ec;
  for (const auto& entry : fs::directory_iterator(dir, ec)) {
    const fs::path name = entry.path().filename();  // ".step-7.partial", ".step-7.old"
    const bool left = name.extension() == ".partial" || name.extension() == ".old";
    if (left && name.string().starts_with(".") && step_of(name.stem().string().substr(1)) >= 0)
      fs::remove_all(entry.path(), ec);
  }
}

std::optional<fs::path> newest_checkpoint(const fs::path& dir) {
  const auto all = checkpoints(dir);
  return all.empty() ? std::nullopt : std::optional(all.rbegin()->second);
}

Manner manner_of(const fs::path& folder) {
  try {
    const auto json = nlohmann::ordered_json::parse(read_file(folder / kState));
    const std::string dtype = json.at("recipe").at("model").at("dtype");
    return {json.value("compute", dtype + " native 0"), json.value("result_dtype", dtype)};
  } catch (const nlohmann::json::exception& error) {
    input_error("{}: {}", (folder / kState).string(), error.what());
  }
}

RunState load_checkpoint(const fs::path& folder, const recipe::Recipe& recipe, model::Llama& llama, Trained& trained,
                         AdamW& optimizer) {
  RunState state;
  try {
    const auto json = nlohmann::ordered_json::parse(read_file(folder / kState));
    const std::string differences = other_than(json.at("recipe"), recipe);
    if (!differences.empty())
      usage_error("--resume goes on with the recipe that the run began with, but:{}", differences);
    for (const auto& [name, hash] : json.at("files").items()) {
      if (hash_of(folder / name) != hash.get<std::string>()) {
        input_error(
            "{}: is damaged (its contents do not match {}); remove the folder to resume from an older checkpoint",
            (folder / name).string(), kState);
      }
    }
    state = {.step = json.at("step"),
             .tokens = json.at("tokens"),
             .manner = {},
             .cursor = nlohmann::json::parse(json.at("cursor").dump())};
    if (json.contains("unlogged")) state.unlogged = StepRecord::of_json(nlohmann::json::parse(json["unlogged"].dump()));
  } catch (const nlohmann::json::exception& error) {
    input_error("{}: {}", (folder / kState).string(), error.what());
  }
  if (recipe.tune.mode == "lora") {
    adapt::load_trained(llama, io::Adapter(folder));
  } else {
    const io::TensorStore store(folder);
    for (model::Parameter* p : llama.trainable()) p->assign(model::as_tensor(store.at(p->name)));
  }
  load_moments(trained, folder / kOptimizer);
  optimizer.set_steps(state.step);
  return state;
}

}  // namespace longlora::train

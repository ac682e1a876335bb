#include "core/train/trainer.h"

#include "core/base/file.h"
#include "core/base/log.h"
#include "core/base/random.h"
#include "core/base/signal.h"
#include "core/base/version.h"
#include "core/io/context_record.h"
#include "core/io/file_lock.h"
#include "core/recipe/print.h"
#include "core/train/checkpoint.h"
#include "core/train/out_of_memory.h"
#include "core/train/steps.h"
#include "core/train/summary.h"

namespace longlora::train {
namespace {

constexpr uint64_t kOrder = 4;  // stream of the run's seed, beside those of setup.cpp and steps.cpp

// A batch job may be started again after its last rank was killed with the result already written.
bool is_finished(const fs::path& dir) {
  return fs::exists(dir / "final");
}

// Exit 2 where the finished run is of another recipe. What setup fills in, the run's recipe says.
void check_is_that_run(const recipe::Recipe& recipe) {
  const fs::path dir = recipe.checkpoint.dir, file = dir / "recipe.resolved.json";
  if (!fs::exists(file))
    input_error("{}: is missing, so that nothing says which run {} holds", file.string(), dir.string());
  const auto saved = nlohmann::ordered_json::parse(read_file(file), nullptr, /*allow_exceptions=*/false);
  if (!saved.is_object()) input_error("{}: is no recipe", file.string());
  using Pointer = nlohmann::ordered_json::json_pointer;
  recipe::Recipe filled_in = recipe;
  const std::string& dtype = recipe.model.dtype;
  if (dtype == "auto" || dtype == "stored") filled_in.model.dtype = saved.value(Pointer("/model/dtype"), dtype);
  if (recipe.context.length == 0) filled_in.context.length = saved.value(Pointer("/context/length"), int64_t{0});
  const std::string differences = other_than(saved, filled_in);
  if (differences.empty()) return;
  usage_error(
      "--resume: {} holds a finished run of another recipe; to train on from its result, {}, start a new run with "
      "another checkpoint.dir:{}",
      dir.string(), (dir / "final").string(), differences);
}

// The run's folder must be new, or resumed; it is made when all else is known to be right; a killed run's half-written checkpoints are swept away.
void open_folder(const recipe::Recipe& recipe, bool resume) {
  const fs::path dir = recipe.checkpoint.dir;
  if (is_finished(dir))
    usage_error("{} holds a finished run; choose another checkpoint.dir for a new one", dir.string());
  const bool begun = fs::exists(dir / "recipe.resolved.json") || fs::exists(dir / "metrics.jsonl");
  if (resume && !begun && !newest_checkpoint(dir)) {
    usage_error("--resume: {} holds no run; start without --resume, or name the run's folder", dir.string());
  }
  if (!resume && newest_checkpoint(dir)) {
    usage_error("{} holds a run already; pass --resume to go on with it, or choose another checkpoint.dir",
                dir.string());
  }
  if (!resume && fs::exists(dir / "metrics.jsonl")) {
    usage_error(
        "{} holds a run that ended before its first checkpoint; pass --resume to start it over, or choose another "
        "checkpoint.dir",
        dir.string());
  }
  if (fs::exists(dir) && !fs::is_directory(dir)) usage_error("checkpoint.dir: {} is not a folder", dir.string());
  if (!resume) check_new_file(dir / "metrics.jsonl", "checkpoint.dir");
  std::error_code ec;
  for (const auto& entry : fs::directory_iterator(dir, ec)) {
    const std::string name = entry.path().filename().string();
    if (!resume && name != "cache" && name != "recipe.resolved.json" && !name.starts_with("."))
      usage_error("checkpoint.dir: {} holds other files ({}); choose a new folder", dir.string(), name);
  }
}

// The newest checkpoint that rank 0 sees, on all ranks; none where the run was stopped before its first.
std::optional<fs::path> checkpoint_to_resume(const fs::path& dir, dist::Group& group) {
  const at::Tensor step = at::full({1}, int64_t{-1}, at::kLong);
  if (group.rank() == 0) {
    if (const auto folder = newest_checkpoint(dir)) *step.data_ptr<int64_t>() = step_of(*folder);
  }
  group.broadcast(step, 0);
  if (*step.data_ptr<int64_t>() < 0) {
    log::info("{}: no step was saved; starting from the beginning", dir.string());
    return std::nullopt;
  }
  fs::path folder = dir / fmt::format("step-{}", *step.data_ptr<int64_t>());
  if (!fs::exists(folder)) {
    input_error("{}: rank 0 sees it, rank {} does not; checkpoint.dir must lie where all nodes read and write",
                folder.string(), group.rank());
  }
  return folder;
}

void save_final(const Setup& setup, const model::Whole& whole, bool first) {
  if (!first) return save_model(setup, {}, setup.result_dtype, whole);
  AtomicFolder folder(fs::path(setup.recipe.checkpoint.dir) / "final", false);
  save_model(setup, folder.path(), setup.result_dtype, whole);
  folder.commit();
}

void say_plan(int64_t step) {
  if (step == 0) return say_on_stop("finishing up: giving up the first step; there is nothing to save yet");
  say_on_stop("finishing up: giving up what is under way, saving the last complete step (so far {})", step);
}

// From the first rank's lock on the folder to final/.
Exit run(Setup& setup, bool resume, dist::Job& job) {
  const recipe::Recipe& recipe = setup.recipe;
  const fs::path dir = recipe.checkpoint.dir;
  std::optional<io::FileLock> lock;
  if (job.first()) {
    std::error_code ec;
    fs::create_directories(dir, ec);
    if (ec) fail("{}: cannot create the folder: {}", dir.string(), ec.message());
    lock.emplace(dir);
    if (!lock->try_lock()) usage_error("checkpoint.dir: {}: another process is training in it now", dir.string());
    sweep_checkpoints(dir);
  }
  job.open_group(recipe.parallel.sequence, setup.device);
  dist::Group& group = job.group();
  job.activity().enter("making gradients and moments");
  Trained trained(*setup.llama, gradients_of(setup.shard, recipe.tune.mode == "full"), group);
  if (setup.weights != nullptr) setup.weights->connect(group);
  AdamW optimizer(trained, recipe.optimizer);
  data::Loader loader(setup.rows, derive_seed(static_cast<uint64_t>(recipe.seed), {kOrder}), recipe.data.shuffle);
  job.check_same("version, recipe, base model or data",
                 version_line() + recipe::to_json(recipe) + setup.base_fingerprint + loader.save().dump());

  RunState state;
  const auto from = resume ? checkpoint_to_resume(dir, group) : std::nullopt;
  if (from) {
    const fs::path& folder = *from;
    const auto record = io::read_context_record(folder);
    if (recipe.tune.mode == "lora" && record && record->base_fingerprint != setup.base_fingerprint) {
      input_error("{}: was trained on another base than {} holds now; --resume needs the same", folder.string(),
                  recipe.model.path);
    }
    if (record && record->stacked_on != setup.stacked_on)
      input_error("{}: was trained on other adapters than model.stack_on holds now; --resume needs the same",
                  folder.string());
    state = load_checkpoint(folder, recipe, *setup.llama, trained, optimizer);
    if (setup.weights != nullptr) setup.weights->refresh();
    loader.restore(state.cursor);
  }
  if (job.first()) write_file_atomically(dir / "recipe.resolved.json", recipe::to_json(recipe));
  print_summary(setup, state.step, job.launch());

  const bool saves = job.first() || trained.sliced();  // all take part where each has a slice
  const model::Whole whole = [&](const model::Parameter& p) { return trained.whole(p.master, p.value.sizes()); };
  const auto save = [&] {
    if (!saves) return;
    job.activity().enter("saving a checkpoint");
    state.manner = {model::to_text(setup.compute), model::name_of(setup.result_dtype)};
    save_checkpoint(recipe, state, trained, [&](const fs::path& folder, at::ScalarType type) {
      save_model(setup, folder, type, trained.sliced() ? whole : model::Whole());
    });
  };
  Steps steps(setup, optimizer, trained, job);
  std::optional<StepLog> log;
  if (job.first()) log.emplace(recipe, state.step - (state.unlogged ? 1 : 0));  // its line is written again
  const dist::Share share = dist::share_of(recipe.batch.sequences, job.place().data, job.place().data_size);
  state.cursor = loader.save();
  const auto validate_and_log = [&](StepRecord record) {
    const bool last = state.step == recipe.schedule.steps;
    if (recipe.eval.every_steps > 0 && (state.step % recipe.eval.every_steps == 0 || last)) {
      state.unlogged = record;
      record.valid_loss = steps.validate(state.step - 1);
      state.unlogged.reset();
    }
    if (log) log->write(record);
  };
  try {
    say_plan(state.step);
    if (state.unlogged) validate_and_log(*state.unlogged);
    while (state.step < recipe.schedule.steps) {
      job.activity().enter_step(state.step + 1);
      job.begin_part(state.step, -1);
      job.activity().enter("reading rows");
      const std::vector<int64_t> rows = loader.peek(recipe.batch.sequences);
      const std::vector<data::Batch> batches =
          loader.next_step(recipe.batch.sequences, recipe.batch.micro, share.begin, share.end);
      StepRecord record = steps.step(batches, share, rows, state.step);
      ++state.step;
      state.tokens += record.tokens;
      state.cursor = loader.save();
      record.tokens = state.tokens;
      say_plan(state.step);
      validate_and_log(record);
      if (state.step < recipe.schedule.steps && recipe.checkpoint.every_steps > 0 &&
          state.step % recipe.checkpoint.every_steps == 0)
        save();
    }
  } catch (const Stopped&) {
    if (log) log->progress().clear();
    if (state.step > 0) save();
    group.barrier();  // a rank that ends may have its launcher end the others
    if (state.step == 0)
      throw Stopped(
          "stopped in the first step, before there was anything to save; the same command with --resume starts it "
          "again");
    log::info("stopped after step {}, which is saved; the same command with --resume goes on", state.step);
    return Exit::interrupted;
  }
  say_on_stop("the last step is done; writing the result first");
  if (saves) {
    job.activity().enter("saving the result");
    if (log) log->progress().finish();
    save_final(setup, trained.sliced() ? whole : model::Whole(), job.first());
    if (job.first()) log::info("done: {}", (dir / "final").string());
  }
  group.barrier();
  return Exit::done;
}

}  // namespace

Exit train(const recipe::Recipe& recipe, bool resume, recipe::Use use) {
  dist::Job alone;
  return train(recipe, resume, use, alone);
}

void check_ranks(const recipe::Recipe& recipe, const dist::Launch& launch) {
  const dist::Place place = dist::place_of(launch, recipe.parallel.sequence);
  if (recipe.batch.sequences < place.data_size) {
    usage_error(
        "batch.sequences {}: fewer than the {} ranks{}, so that some would have nothing to do; start at most {}",
        recipe.batch.sequences, launch.size,
        place.sequence_size > 1 ? fmt::format(" / parallel.sequence {}", place.sequence_size) : "",
        recipe.batch.sequences * place.sequence_size);
  }
}

Exit train(const recipe::Recipe& asked, bool resume, recipe::Use use, dist::Job& job) {
  check_ranks(asked, job.launch());
  if (resume) {
    const bool here = job.first() && is_finished(asked.checkpoint.dir);
    if (here) check_is_that_run(asked);
    if (job.of_first("whether the run is finished", here ? "yes" : "no") == "yes") {
      if (here) log::info("{}: this run is finished; nothing is left to do", asked.checkpoint.dir);
      job.open_group();  // rank 0 may hold what the ranks meet at: it stays until all have come
      job.group().barrier();
      return Exit::done;
    }
  }
  if (job.first()) open_folder(asked, resume);
  const auto newest = resume && job.first() ? newest_checkpoint(asked.checkpoint.dir) : std::nullopt;
  Setup setup = prepare_run(asked, use, job, newest ? manner_of(*newest) : Manner{});
  Exit exit = Exit::done;
  naming_out_of_memory(
      setup.memory, setup.recipe, job.launch().size, [&] { return job.activity().describe(); },
      [&] { exit = run(setup, resume, job); });
  return exit;
}

}  // namespace longlora::train

#include "core/train/trainer.h"

#include <fmt/ranges.h>

#include <chrono>
#include <cmath>
#include <span>

#include "core/base/log.h"
#include "core/base/random.h"
#include "core/base/signal.h"
#include "core/base/version.h"
#include "core/io/context_record.h"
#include "core/io/file_lock.h"
#include "core/recipe/print.h"
#include "core/train/adamw.h"
#include "core/train/checkpoint.h"
#include "core/train/out_of_memory.h"
#include "core/train/schedule.h"
#include "core/train/step_log.h"
#include "core/train/summary.h"
#include "core/train/trained.h"

namespace longlora::train {
namespace {

using Clock = std::chrono::steady_clock;

constexpr uint64_t kDropout = 3, kOrder = 4;  // streams of the run's seed, beside those of setup.cpp

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// The run's folder must be new, or resumed; it is made when all else is known to be right; a killed run's half-written checkpoints are swept away.
void open_folder(const recipe::Recipe& recipe, bool resume) {
  const fs::path dir = recipe.checkpoint.dir;
  if (fs::exists(dir / "final")) {
    usage_error("{} holds a finished run, nothing is left to do; choose another checkpoint.dir for a new one",
                dir.string());
  }
  if (resume && !newest_checkpoint(dir)) {
    usage_error("--resume: {} holds no complete checkpoint; start without --resume, or name the run's folder",
                dir.string());
  }
  if (!resume && newest_checkpoint(dir)) {
    usage_error("{} holds a run already; pass --resume to go on with it, or choose another checkpoint.dir",
                dir.string());
  }
  if (!resume && fs::exists(dir / "metrics.jsonl")) {
    usage_error("{} holds a run that ended before its first checkpoint; remove it, or choose another checkpoint.dir",
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

int64_t sum_over_ranks(dist::Group& group, int64_t value) {
  const at::Tensor sum = at::full({1}, value, at::kLong);
  group.all_reduce(sum);
  return *sum.data_ptr<int64_t>();
}

// Tells what is trained, and the weights where they are cut up, of the model's use.
class Watcher : public model::UnitWatcher {
 public:
  Watcher(const Setup& setup, Trained& trained)
      : llama_(*setup.llama), weights_(setup.weights.get()), trained_(trained) {
    llama_.watch(this);
  }
  ~Watcher() override { llama_.watch(nullptr); }
  Watcher(const Watcher&) = delete;
  Watcher& operator=(const Watcher&) = delete;

  void needed(size_t unit, size_t next) override {
    if (weights_ != nullptr) weights_->needed(unit, next);
  }
  void done(size_t unit) override {
    if (weights_ != nullptr) weights_->done(unit);
  }
  void filling(size_t unit) override { trained_.filling(unit); }
  void filled(size_t unit) override { trained_.filled(unit); }

 private:
  model::Llama& llama_;
  WeightShards* weights_;
  Trained& trained_;
};

Gradients gradients_of(const Setup& setup) {
  if (setup.shard == Shard::none) return Gradients::whole;
  const bool by_unit = setup.shard == Shard::model && setup.recipe.tune.mode == "full";
  return by_unit ? Gradients::sliced_by_unit : Gradients::sliced;
}

// One optimizer step: all micro-batches, then the update.
class Trainer {
 public:
  Trainer(Setup& setup, AdamW& optimizer, Trained& trained, dist::Job& job)
      : setup_(setup), optimizer_(optimizer), trained_(trained), job_(job) {}

  // The loss is the sum over tokens divided by the number of targets of the whole step, so that it does not depend on
  // how the step is cut into micro-batches and ranks.
  // `wholes` are this rank's share of the step's rows (of each it works on its pieces); `rows` are the numbers of all of
  // them in the data, for messages.
  StepRecord step(const std::vector<data::Batch>& wholes, dist::Share share, std::span<const int64_t> rows,
                  int64_t step) {
    const auto start = Clock::now();
    const recipe::Recipe& recipe = setup_.recipe;
    const model::AttentionPattern pattern = pattern_of(setup_.grouped(step) ? setup_.group() : 0);
    int64_t targets = 0;
    std::vector<data::Batch> batches;
    for (const data::Batch& whole : wholes) batches.push_back(own_part(whole, pattern));
    for (const data::Batch& batch : batches) targets += batch.target_count();
    targets = sum_over_ranks(job_.group(), targets);
    const int64_t tokens = recipe.batch.sequences * recipe.context.length;
    const double scale = 1.0 / static_cast<double>(std::max<int64_t>(1, targets));
    StepRecord record{.step = step + 1,
                      .loss = {},
                      .lr = learning_rate(recipe.schedule, recipe.optimizer.lr, step),
                      .grad_norm = 0,
                      .tokens = tokens,
                      .tokens_per_s = 0,
                      .valid_loss = {}};
    const auto [seed, index] = std::pair(static_cast<uint64_t>(recipe.seed), static_cast<uint64_t>(step));
    ops::Dropout dropout{.seed = derive_seed(seed, {kDropout, index}) | 1,
                         .first_token = share.begin * recipe.context.length};
    auto row = static_cast<size_t>(share.begin);
    job_.activity().enter("forward and backward");
    const size_t passes = passes_of(batches.size());
    for (size_t pass = 0; pass < passes; ++pass) {
      if (pass + 1 == passes) trained_.last_micro_batch();
      if (pass >= batches.size()) {  // in step with the others: adds zeros
        (void)setup_.llama->forward_backward(batches.back(), pattern, setup_.memory.recompute, 0, dropout);
        continue;
      }
      const data::Batch& batch = batches[pass];
      const at::Tensor losses = setup_.llama->forward_backward(batch, pattern, setup_.memory.recompute, scale, dropout)
                                    .to(at::kCPU, at::kFloat)
                                    .contiguous();
      record.loss.add(batch, losses.data_ptr<float>());
      const auto count = static_cast<size_t>(batch.rows);
      if (!std::isfinite(record.loss.total())) not_finite("loss", step, rows.subspan(row, count));
      row += count;
      dropout.first_token += batch.size();
    }
    job_.activity().enter("sum of the gradients");
    trained_.sum();
    job_.activity().enter("optimizer");
    record.grad_norm = optimizer_.step(record.lr);
    if (!std::isfinite(record.grad_norm)) not_finite("gradient norm", step, rows);
    trained_.spread();
    if (setup_.weights != nullptr) setup_.weights->refresh();
    record.loss.add_ranks(job_.group());
    record.tokens_per_s = static_cast<double>(tokens) / seconds_since(start);
    return record;
  }

  // Mean loss of the validation rows, always with full attention.
  [[nodiscard]] double validate() const {
    job_.activity().enter("validation");
    LossSum sum;
    const model::AttentionPattern pattern = pattern_of(0);
    const auto share = static_cast<size_t>(job_.place().data), shares = static_cast<size_t>(job_.place().data_size);
    for (size_t first = 0; first < setup_.validation.size(); first += shares) {
      const bool none = first + share >= setup_.validation.size();
      if (none && setup_.weights == nullptr) break;
      const data::Batch batch = own_part(setup_.validation[none ? first : first + share], pattern);
      const at::Tensor losses = setup_.llama->token_losses(batch, pattern).to(at::kCPU, at::kFloat).contiguous();
      if (!none) sum.add(batch, losses.data_ptr<float>());
    }
    sum.add_ranks(job_.group());
    return sum.mean();
  }

 private:
  // Of this rank's micro-batches. Weights that are cut up are gathered by all ranks at once, so that those with fewer rows go
  // along as often as the first one.
  [[nodiscard]] size_t passes_of(size_t batches) const {
    if (setup_.weights == nullptr) return batches;
    const recipe::Batch& batch = setup_.recipe.batch;
    const int64_t most = dist::share_of(batch.sequences, 0, job_.place().data_size).size();
    return static_cast<size_t>((most + batch.micro - 1) / batch.micro);
  }

  [[nodiscard]] model::AttentionPattern pattern_of(int64_t group) const {
    return {.group = group,
            .backend = ops::parse_backend(setup_.recipe.attention.backend),
            .sequence = job_.place().sequence_size > 1 ? &job_.sequence_group() : nullptr};
  }

  // What this rank has of a batch that attends so.
  [[nodiscard]] data::Batch own_part(const data::Batch& batch, const model::AttentionPattern& pattern) const {
    const dist::Place& place = job_.place();
    if (pattern.sequence == nullptr) return batch;
    return data::cut(
        batch, dist::pieces_of(dist::layout_of(pattern.group > 0), batch.size(), place.sequence, place.sequence_size));
  }

  [[noreturn]] static void not_finite(const char* what, int64_t step, std::span<const int64_t> rows) {
    constexpr size_t kMost = 8;
    const std::string more = rows.size() > kMost ? fmt::format(" and {} more", rows.size() - kMost) : "";
    fail(
        "step {}: the {} is not finite (rows {}{} of data.train, counted from 0); the last checkpoint is untouched. "
        "Try a lower optimizer.lr, more schedule.warmup_steps or a smaller optimizer.max_grad_norm, and check the data "
        "and the base model with eval-ppl",
        step + 1, what, fmt::join(rows.first(std::min(rows.size(), kMost)), ", "), more);
  }

  Setup& setup_;
  AdamW& optimizer_;
  Trained& trained_;
  dist::Job& job_;
};

// The newest checkpoint that rank 0 sees, on all ranks.
fs::path checkpoint_to_resume(const fs::path& dir, dist::Group& group) {
  const at::Tensor step = at::full({1}, int64_t{-1}, at::kLong);
  if (group.rank() == 0) {
    const auto folder = newest_checkpoint(dir);
    if (!folder) usage_error("{} holds no checkpoint any more", dir.string());
    *step.data_ptr<int64_t>() = step_of(*folder);
  }
  group.broadcast(step, 0);
  fs::path folder = dir / fmt::format("step-{}", *step.data_ptr<int64_t>());
  if (!fs::exists(folder)) {
    input_error("{}: rank 0 sees it, rank {} does not; checkpoint.dir must lie where all nodes read and write",
                folder.string(), group.rank());
  }
  return folder;
}

void save_final(const Setup& setup, const model::Whole& whole, bool first) {
  if (!first) return save_model(setup, {}, setup.dtype, whole);
  AtomicFolder folder(fs::path(setup.recipe.checkpoint.dir) / "final", false);
  save_model(setup, folder.path(), setup.dtype, whole);
  folder.commit();
}

}  // namespace

Exit train(const recipe::Recipe& recipe, bool resume, recipe::Use use) {
  dist::Job alone;
  return train(recipe, resume, use, alone);
}

Exit train(const recipe::Recipe& asked, bool resume, recipe::Use use, dist::Job& job) {
  const dist::Place place = dist::place_of(job.launch(), asked.parallel.sequence);
  if (asked.batch.sequences < place.data_size) {
    usage_error("batch.sequences {}: fewer than the {} ranks{}, so that some would have nothing to do",
                asked.batch.sequences, job.launch().size,
                place.sequence_size > 1 ? fmt::format(" / parallel.sequence {}", place.sequence_size) : "");
  }
  if (job.first()) open_folder(asked, resume);
  Setup setup = prepare_run(asked, use, job);
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
  Trained trained(*setup.llama, gradients_of(setup), group);
  if (setup.weights != nullptr) setup.weights->connect(group);
  const Watcher watcher(setup, trained);
  AdamW optimizer(trained, recipe.optimizer);
  data::Loader loader(setup.rows, derive_seed(static_cast<uint64_t>(recipe.seed), {kOrder}), recipe.data.shuffle);
  job.check_same("version, recipe, base model or data",
                 version_line() + recipe::to_json(recipe) + setup.base_fingerprint + loader.save().dump());

  RunState state;
  if (resume) {
    const fs::path folder = checkpoint_to_resume(dir, group);
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
    state.cursor = loader.save();
    save_checkpoint(recipe, state, trained, [&](const fs::path& folder, at::ScalarType type) {
      save_model(setup, folder, type, trained.sliced() ? whole : model::Whole());
    });
  };
  Trainer trainer(setup, optimizer, trained, job);
  std::optional<StepLog> log;
  if (job.first()) log.emplace(recipe, state.step);
  const dist::Share share = dist::share_of(recipe.batch.sequences, place.data, place.data_size);
  while (state.step < recipe.schedule.steps) {
    job.activity().enter_step(state.step + 1);
    job.activity().enter("reading rows");
    const std::vector<int64_t> rows = loader.peek(recipe.batch.sequences);
    const std::vector<data::Batch> batches =
        loader.next_step(recipe.batch.sequences, recipe.batch.micro, share.begin, share.end);
    StepRecord record{};
    naming_out_of_memory(
        setup.memory, recipe, [&] { return job.activity().describe(); },
        [&] { record = trainer.step(batches, share, rows, state.step); });
    ++state.step;
    state.tokens += record.tokens;
    record.tokens = state.tokens;
    const bool last = state.step == recipe.schedule.steps;
    if (recipe.eval.every_steps > 0 && (state.step % recipe.eval.every_steps == 0 || last))
      record.valid_loss = trainer.validate();
    if (log) log->write(record);
    const bool stop = sum_over_ranks(group, stop_requested() ? 1 : 0) > 0;  // the same step on all ranks
    if (stop && !last) {
      save();
      group.barrier();  // a rank that ends may have its launcher end the others
      if (log) log->progress().clear();
      log::info("stopped by {} after step {}; saved: the same command with --resume goes on",
                stop_requested() ? fmt::format("signal {}", stop_signal()) : "a signal to another rank", state.step);
      return Exit::interrupted;
    }
    if (recipe.checkpoint.every_steps > 0 && state.step % recipe.checkpoint.every_steps == 0) save();
  }
  if (saves) {
    job.activity().enter("saving the result");
    if (log) log->progress().finish();
    save_final(setup, trained.sliced() ? whole : model::Whole(), job.first());
    if (job.first()) log::info("done: {}", (dir / "final").string());
  }
  group.barrier();
  return Exit::done;
}

}  // namespace longlora::train

#include "core/train/steps.h"

#include <fmt/ranges.h>

#include <chrono>
#include <cmath>

#include "core/base/error.h"
#include "core/base/random.h"
#include "core/base/signal.h"
#include "core/train/schedule.h"

namespace longlora::train {
namespace {

using Clock = std::chrono::steady_clock;

// Parts of a step, as the ranks agree on where to leave it: micro-batches, then the update, then rows of the validation.
constexpr int64_t kValidation = int64_t{1} << 32;

constexpr uint64_t kDropout = 3;  // stream of the run's seed, beside those of setup.cpp and trainer.cpp

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// From here on the step is no longer given up.
void say_plan_of_update(const recipe::Recipe& recipe, int64_t step) {
  if (step + 1 == recipe.schedule.steps && recipe.eval.every_steps == 0)
    return say_on_stop("finishing up: the last step is nearly done; writing the result first");
  say_on_stop("finishing up: the step is nearly done; saving the state after step {}", step + 1);
}

[[noreturn]] void not_finite(const char* what, int64_t step, std::span<const int64_t> rows) {
  constexpr size_t kMost = 8;
  const std::string more = rows.size() > kMost ? fmt::format(" and {} more", rows.size() - kMost) : "";
  fail(
      "step {}: the {} is not finite (rows {}{} of data.train, counted from 0); the last checkpoint is untouched. "
      "Try a lower optimizer.lr, more schedule.warmup_steps or a smaller optimizer.max_grad_norm, and check the data "
      "and the base model with eval-ppl",
      step + 1, what, fmt::join(rows.first(std::min(rows.size(), kMost)), ", "), more);
}

}  // namespace

StepRecord Steps::step(const std::vector<data::Batch>& wholes, dist::Share share, std::span<const int64_t> rows,
                       int64_t step) {
  const auto start = Clock::now();
  const recipe::Recipe& recipe = setup_.recipe;
  const model::AttentionPattern pattern = pattern_of(setup_.grouped(step) ? setup_.group() : 0);
  int64_t targets = 0;
  std::vector<data::Batch> batches;
  for (const data::Batch& whole : wholes) batches.push_back(own_part(whole, pattern));
  for (const data::Batch& batch : batches) targets += batch.target_count();
  targets = job_.sum(targets);
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
  const size_t passes = passes_of(batches.size()), most = most_passes();
  for (size_t pass = 0; pass < passes; ++pass) {
    job_.begin_part(step, static_cast<int64_t>(most - passes +
                                               pass));  // in the last one ranks sum gradients: it is the same on all
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
  job_.begin_part(step, static_cast<int64_t>(most));  // the last place: what follows changes the weights
  say_plan_of_update(recipe, step);
  job_.activity().enter("optimizer");
  record.grad_norm = optimizer_.step(record.lr);
  if (!std::isfinite(record.grad_norm)) not_finite("gradient norm", step, rows);
  trained_.spread();
  if (setup_.weights != nullptr) setup_.weights->refresh();
  record.loss.add_ranks(job_.group());
  record.tokens_per_s = static_cast<double>(tokens) / seconds_since(start);
  return record;
}

double Steps::validate(int64_t step) const {
  job_.activity().enter("validation");
  LossSum sum;
  const model::AttentionPattern pattern = pattern_of(0);
  const auto share = static_cast<size_t>(job_.place().data), shares = static_cast<size_t>(job_.place().data_size);
  for (size_t first = 0; first < setup_.validation.size(); first += shares) {
    job_.begin_part(step, kValidation + static_cast<int64_t>(first));
    const bool none = first + share >= setup_.validation.size();
    if (none && setup_.weights == nullptr) break;
    const data::Batch batch = own_part(setup_.validation[none ? first : first + share], pattern);
    const at::Tensor losses = setup_.llama->token_losses(batch, pattern).to(at::kCPU, at::kFloat).contiguous();
    if (!none) sum.add(batch, losses.data_ptr<float>());
  }
  job_.begin_part(step, kValidation + static_cast<int64_t>(setup_.validation.size()));
  sum.add_ranks(job_.group());
  return sum.mean();
}

size_t Steps::most_passes() const {
  const recipe::Batch& batch = setup_.recipe.batch;
  const int64_t most = dist::share_of(batch.sequences, 0, job_.place().data_size).size();
  return static_cast<size_t>((most + batch.micro - 1) / batch.micro);
}

size_t Steps::passes_of(size_t batches) const {
  return setup_.weights == nullptr ? batches : most_passes();
}

model::AttentionPattern Steps::pattern_of(int64_t group) const {
  return {.group = group,
          .backend = ops::parse_backend(setup_.recipe.attention.backend),
          .sequence = job_.place().sequence_size > 1 ? &job_.sequence_group() : nullptr};
}

data::Batch Steps::own_part(const data::Batch& batch, const model::AttentionPattern& pattern) const {
  const dist::Place& place = job_.place();
  if (pattern.sequence == nullptr) return batch;
  return data::cut(
      batch, dist::pieces_of(dist::layout_of(pattern.group > 0), batch.size(), place.sequence, place.sequence_size));
}

}  // namespace longlora::train

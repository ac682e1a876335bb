#include "core/train/step_log.h"

#include <nlohmann/json.hpp>

#include "core/base/memory.h"

namespace longlora::train {

void LossSum::add(const data::Batch& batch, const float* losses) {
  for (size_t i = 0; i < batch.targets.size(); ++i) {
    if (batch.targets[i] == data::kIgnore) continue;
    const auto bucket = static_cast<size_t>(batch.positions[i] * static_cast<int64_t>(kBuckets) / batch.length);
    total_ += static_cast<double>(losses[i]);
    sums_[bucket] += static_cast<double>(losses[i]);
    ++count_;
    ++counts_[bucket];
  }
}

void LossSum::add_ranks(dist::Group& group) {
  if (group.size() == 1) return;
  const at::Tensor sums = at::empty({static_cast<int64_t>(2 * kBuckets + 2)}, at::kDouble);
  double* value = sums.data_ptr<double>();
  *value++ = total_;
  *value++ = static_cast<double>(count_);
  for (size_t b = 0; b < kBuckets; ++b) {
    *value++ = sums_[b];
    *value++ = static_cast<double>(counts_[b]);
  }
  group.all_reduce(sums);
  value = sums.data_ptr<double>();
  total_ = *value++;
  count_ = static_cast<int64_t>(*value++);
  for (size_t b = 0; b < kBuckets; ++b) {
    sums_[b] = *value++;
    counts_[b] = static_cast<int64_t>(*value++);
  }
}

std::array<std::optional<double>, LossSum::kBuckets> LossSum::by_position() const {
  std::array<std::optional<double>, kBuckets> means;
  for (size_t b = 0; b < kBuckets; ++b) {
    if (counts_[b] > 0) means[b] = sums_[b] / static_cast<double>(counts_[b]);
  }
  return means;
}

nlohmann::json LossSum::to_json() const {
  return {{"total", total_}, {"count", count_}, {"sums", sums_}, {"counts", counts_}};
}

LossSum LossSum::of_json(const nlohmann::json& json) {
  LossSum sum;
  json.at("total").get_to(sum.total_);
  json.at("count").get_to(sum.count_);
  json.at("sums").get_to(sum.sums_);
  json.at("counts").get_to(sum.counts_);
  return sum;
}

nlohmann::json StepRecord::to_json() const {
  return {{"step", step},           {"loss", loss.to_json()}, {"lr", lr},
          {"grad_norm", grad_norm}, {"tokens", tokens},       {"tokens_per_s", tokens_per_s}};
}

StepRecord StepRecord::of_json(const nlohmann::json& json) {
  return {.step = json.at("step"),
          .loss = LossSum::of_json(json.at("loss")),
          .lr = json.at("lr"),
          .grad_norm = json.at("grad_norm"),
          .tokens = json.at("tokens"),
          .tokens_per_s = json.at("tokens_per_s"),
          .valid_loss = {}};
}

StepLog::StepLog(const recipe::Recipe& recipe, int64_t resumed_step)
    : recipe_(recipe),
      metrics_(fs::path(recipe.checkpoint.dir) / "metrics.jsonl", resumed_step),
      progress_("step", recipe.schedule.steps, "steps") {
  if (recipe.log.tensorboard) events_.emplace(recipe.checkpoint.dir, resumed_step);
}

void StepLog::write(const StepRecord& r) {
  progress_.update(r.step, fmt::format("loss {:.4f}  {} tokens/s", r.loss.mean(), format_count(r.tokens_per_s)));
  if (r.step % recipe_.log.every_steps != 0 && !r.valid_loss && r.step != recipe_.schedule.steps) return;
  const auto memory = peak_memory();
  nlohmann::ordered_json line = {{"step", r.step},           {"loss", r.loss.mean()}, {"lr", r.lr},
                                 {"grad_norm", r.grad_norm}, {"tokens", r.tokens},    {"tokens_per_s", r.tokens_per_s},
                                 {"memory_bytes", memory}};
  std::vector<io::Scalar> scalars = {{"train/loss", r.loss.mean()},
                                     {"train/lr", r.lr},
                                     {"train/grad_norm", r.grad_norm},
                                     {"speed/tokens_per_s", r.tokens_per_s},
                                     {"memory/peak_gib", static_cast<double>(memory) / 0x1p30}};
  static constexpr std::array<const char*, LossSum::kBuckets> kTags = {
      "loss_by_position/1of8", "loss_by_position/2of8", "loss_by_position/3of8", "loss_by_position/4of8",
      "loss_by_position/5of8", "loss_by_position/6of8", "loss_by_position/7of8", "loss_by_position/8of8"};
  const auto buckets = r.loss.by_position();
  for (size_t b = 0; b < buckets.size(); ++b) {
    line["loss_by_position"].push_back(buckets[b] ? nlohmann::ordered_json(*buckets[b]) : nlohmann::ordered_json());
    if (buckets[b]) scalars.push_back({kTags[b], *buckets[b]});
  }
  if (r.valid_loss) {
    line["valid_loss"] = *r.valid_loss;
    scalars.push_back({"valid/loss", *r.valid_loss});
  }
  metrics_.write(line);
  if (events_) events_->write(r.step, scalars);
}

}  // namespace longlora::train

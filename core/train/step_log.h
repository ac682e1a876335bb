// What a run says while it goes: metrics.jsonl, TensorBoard events, a progress line.
#pragma once
#include <array>
#include <cstdint>
#include <optional>

#include <nlohmann/json_fwd.hpp>

#include "core/base/progress.h"
#include "core/data/batch.h"
#include "core/dist/group.h"
#include "core/io/metrics.h"
#include "core/io/tensorboard.h"
#include "core/recipe/recipe.h"

namespace longlora::train {

// Sums of losses over the tokens of a step, also by where in the context the token stands.
class LossSum {
 public:
  static constexpr size_t kBuckets = 8;  // equal shares of the context length

  // `losses` of the batch's tokens (of its pieces, if it has some), 0 where there is no target.
  void add(const data::Batch& batch, const float* losses);
  [[nodiscard]] double total() const { return total_; }
  [[nodiscard]] double mean() const { return count_ > 0 ? total_ / static_cast<double>(count_) : 0; }
  // The sums over all ranks instead of this one's.
  void add_ranks(dist::Group& group);
  // Means of the buckets; empty where a bucket has no target.
  [[nodiscard]] std::array<std::optional<double>, kBuckets> by_position() const;
  [[nodiscard]] nlohmann::json to_json() const;
  [[nodiscard]] static LossSum of_json(const nlohmann::json& json);

 private:
  double total_ = 0;
  int64_t count_ = 0;
  std::array<double, kBuckets> sums_{};
  std::array<int64_t, kBuckets> counts_{};
};

struct StepRecord {
  int64_t step;  // done, from 1
  LossSum loss;
  double lr, grad_norm;
  int64_t tokens;  // trained on so far
  double tokens_per_s;
  std::optional<double> valid_loss;

  [[nodiscard]] nlohmann::json to_json() const;
  [[nodiscard]] static StepRecord of_json(const nlohmann::json& json);
};

class StepLog {
 public:
  StepLog(const recipe::Recipe& recipe, int64_t resumed_step);
  void write(const StepRecord& record);
  [[nodiscard]] Progress& progress() { return progress_; }

 private:
  recipe::Recipe recipe_;
  io::MetricsLog metrics_;
  std::optional<io::EventFile> events_;
  Progress progress_;
};

}  // namespace longlora::train

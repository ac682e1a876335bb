// What a run does between its checkpoints: optimizer steps, each of all micro-batches and then the update, and validations.
#pragma once
#include <span>
#include <vector>

#include "core/dist/job.h"
#include "core/train/adamw.h"
#include "core/train/setup.h"
#include "core/train/step_log.h"
#include "core/train/trained.h"
#include "core/train/watcher.h"

namespace longlora::train {

class Steps {
 public:
  // All of them live as long.
  Steps(Setup& setup, AdamW& optimizer, Trained& trained, dist::Job& job)
      : setup_(setup),
        optimizer_(optimizer),
        trained_(trained),
        job_(job),
        watcher_(*setup.llama, setup.weights.get(), trained, &job) {}

  // Step number `step`, from 0. The loss is the sum over tokens divided by the number of targets of the whole step, so that
  // it does not depend on how the step is cut into micro-batches and ranks. `wholes` are this rank's share of the step's
  // rows (of each it works on its pieces); `rows` are the numbers of all of them in the data, for messages. Throws Stopped, on all
  // ranks alike, where it is given up because of a signal: weights, moments and the optimizer's steps are then as before.
  [[nodiscard]] StepRecord step(const std::vector<data::Batch>& wholes, dist::Share share,
                                std::span<const int64_t> rows, int64_t step);

  // Mean loss of the validation rows after step number `step`, always with full attention. Throws Stopped likewise.
  [[nodiscard]] double validate(int64_t step) const;

 private:
  // Of the rank that has the most.
  [[nodiscard]] size_t most_passes() const;
  // Of this rank's micro-batches. Weights that are cut up are gathered by all ranks at once, so that those with fewer rows go
  // along as often as the first one.
  [[nodiscard]] size_t passes_of(size_t batches) const;
  [[nodiscard]] model::AttentionPattern pattern_of(int64_t group) const;
  // What this rank has of a batch that attends so.
  [[nodiscard]] data::Batch own_part(const data::Batch& batch, const model::AttentionPattern& pattern) const;

  Setup& setup_;
  AdamW& optimizer_;
  Trained& trained_;
  dist::Job& job_;
  Watcher watcher_;
};

}  // namespace longlora::train

// Between a model and what is cut up over the ranks of it, and where the ranks give a step up.
#pragma once
#include "core/dist/job.h"
#include "core/train/trained.h"
#include "core/train/weight_shards.h"

namespace longlora::train {

// Tells what is trained, and the weights where they are cut up, of the model's use.
class Watcher : public model::UnitWatcher {
 public:
  // While it lives; all of them live as long. `weights`: null where they are not cut up; `job`: null where nothing is given up.
  Watcher(model::Llama& llama, WeightShards* weights, Trained& trained, dist::Job* job = nullptr)
      : llama_(llama), weights_(weights), trained_(trained), job_(job) {
    llama_.watch(this);
  }
  ~Watcher() override { llama_.watch(nullptr); }
  Watcher(const Watcher&) = delete;
  Watcher& operator=(const Watcher&) = delete;

  void needed(size_t unit, size_t next) override {
    if (job_ != nullptr) job_->go_on();
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
  dist::Job* job_;
};

}  // namespace longlora::train

// Who is told what of a model is in use. A model's units are its embedding (0), its layers (1 ... n), and final norm and head
// (n + 1); see Llama::units().
#pragma once
#include <cstddef>

namespace longlora::model {

class UnitWatcher {
 public:
  virtual ~UnitWatcher() = default;
  // A watcher may throw from needed(), which gives the pass up; without one a signal does (core/base/signal.h).
  // Between the two the weights of `unit` are read; after it those of `next` will be (the same number: nothing is known).
  virtual void needed(size_t unit, size_t next) = 0;
  virtual void done(size_t unit) = 0;
  // From filling() on there are gradients added to those of `unit`; with filled() they are complete for this micro-batch.
  virtual void filling(size_t unit) = 0;
  virtual void filled(size_t unit) = 0;
};

}  // namespace longlora::model

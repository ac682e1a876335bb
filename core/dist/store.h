// The place where the ranks of a job meet: a small table of keys and values on one of them, reached over TCP (c10d's
// TCPStore). Serves to open groups of ranks, to wait for one another outside of any collective operation, and to tell what
// each rank is doing when one hangs.
#pragma once
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "core/dist/launch.h"

namespace longlora::dist {

class Store {
 public:
  // A table of this process on a free port of this machine, for ranks that it starts itself.
  [[nodiscard]] static Store host();
  // The job's: rank 0 holds it unless the launcher does. Exit 1 when it cannot be reached within `timeout`.
  [[nodiscard]] static Store connect(const Launch& launch, std::chrono::milliseconds timeout);
  // Another connection to the same table, for another thread.
  [[nodiscard]] Store clone() const;

  [[nodiscard]] int port() const;
  // These throw when the process that holds the table is gone.
  void set(const std::string& key, const std::string& value);
  [[nodiscard]] std::optional<std::string> get(const std::string& key);
  int64_t count(const std::string& key);  // how often it was counted, with this time
  // Returns when the key is there, however long that takes; exit 75 when a signal asks to stop meanwhile.
  void wait_for(const std::string& key);

  struct Impl;  // core/dist/c10d.cpp
  [[nodiscard]] Impl& impl() const { return *impl_; }

 private:
  explicit Store(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
  std::shared_ptr<Impl> impl_;
};

}  // namespace longlora::dist

// One rank of as many as you like, alone in this process: operations move no data, but are written down. What a rank would get
// from others is its own (all_gather, sums) or zeros (exchange).
#pragma once
#include <vector>

#include "core/base/error.h"
#include "core/dist/group.h"

namespace longlora {

class RecordingGroup : public dist::Group {
 public:
  struct Sent {
    int peer;
    int64_t bytes;
    bool operator==(const Sent&) const = default;
  };
  RecordingGroup(int rank, int size) : Group(rank, size, activity_) {}
  std::vector<Sent> sent, received;  // messages, in their order

 private:
  Work do_all_reduce(at::Tensor) override { return nullptr; }
  Work do_broadcast(at::Tensor, int) override { return nullptr; }
  Work do_all_gather(at::Tensor all, at::Tensor mine) override {
    all.view({size(), -1}).copy_(mine.view({1, -1}));
    return nullptr;
  }
  Work do_reduce_scatter(at::Tensor mine, at::Tensor all) override {
    mine.view({-1}).copy_(all.view({size(), -1})[rank()]);
    return nullptr;
  }
  Work do_exchange(std::span<const dist::Message> sends, std::span<const dist::Message> receives) override {
    for (const dist::Message& m : sends) sent.push_back({m.peer, static_cast<int64_t>(m.tensor.nbytes())});
    for (const dist::Message& m : receives) {
      received.push_back({m.peer, static_cast<int64_t>(m.tensor.nbytes())});
      m.tensor.zero_();
    }
    return nullptr;
  }
  Work do_barrier() override { return nullptr; }
  [[noreturn]] void failed(dist::Operation operation, const std::string& reason) override {
    fail("{}: {}", dist::to_string(operation), reason);
  }

  dist::Activity activity_;
};

}  // namespace longlora

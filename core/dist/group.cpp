#include "core/dist/group.h"

#include "core/base/error.h"
#include "core/base/progress.h"

namespace longlora::dist {
namespace {

class GroupOfOne : public Group {
 public:
  explicit GroupOfOne(Activity& activity) : Group(0, 1, activity) {}

 private:
  void do_all_reduce(at::Tensor) override {}
  void do_broadcast(at::Tensor, int) override {}
  void do_all_gather(at::Tensor all, at::Tensor mine) override { all.view({-1}).copy_(mine.view({-1})); }
  void do_reduce_scatter(at::Tensor mine, at::Tensor all) override { mine.view({-1}).copy_(all.view({-1})); }
  void do_exchange(std::span<const Message>, std::span<const Message>) override {}  // there is no peer
  void do_barrier() override {}
  [[noreturn]] void failed(Operation operation, const std::string& reason) override {
    fail("{}: {}", to_string(operation), reason);
  }
};

int64_t bytes_of(std::span<const Message> messages) {
  int64_t bytes = 0;
  for (const Message& message : messages) bytes += static_cast<int64_t>(message.tensor.nbytes());
  return bytes;
}

}  // namespace

const char* to_string(Operation operation) {
  static constexpr std::array<const char*, kOperations> kNames = {"all_reduce",     "broadcast", "all_gather",
                                                                  "reduce_scatter", "exchange",  "barrier"};
  return kNames[static_cast<size_t>(operation)];
}

Share share_of(int64_t total, int rank, int size) {
  const int64_t each = total / size, more = total % size;
  const int64_t begin = rank * each + std::min<int64_t>(rank, more);
  return {begin, begin + each + (rank < more ? 1 : 0)};
}

std::string Activity::describe() const {
  std::string text = step_ > 0 ? fmt::format("step {}, {}", step_.load(), phase_.load()) : std::string(phase_.load());
  const double seconds = idle().count();
  if (collectives_ > 0) {
    text += fmt::format("; {} {} {} ({})", waiting_ ? "in" : "last was", collective_.load(), collectives_.load(),
                        format_bytes(static_cast<double>(bytes_.load())));
  }
  return text + fmt::format(", for {:.0f} s", seconds);
}

void Group::run(Operation operation, int64_t bytes, const std::function<void()>& work) {
  Traffic& traffic = traffic_[static_cast<size_t>(operation)];
  ++traffic.calls;
  traffic.bytes += bytes;
  activity_.begin_collective(to_string(operation), bytes);
  try {
    work();
  } catch (const c10::Error& error) {
    failed(operation, error.what_without_backtrace());
  } catch (const std::exception& error) {
    failed(operation, error.what());
  }
  activity_.end_collective();
}

void Group::all_reduce(const at::Tensor& tensor) {
  run(Operation::all_reduce, static_cast<int64_t>(tensor.nbytes()), [&] { do_all_reduce(tensor); });
}
void Group::broadcast(const at::Tensor& tensor, int root) {
  run(Operation::broadcast, root == rank_ ? static_cast<int64_t>(tensor.nbytes()) : 0,
      [&] { do_broadcast(tensor, root); });
}
void Group::all_gather(const at::Tensor& all, const at::Tensor& mine) {
  run(Operation::all_gather, static_cast<int64_t>(mine.nbytes()), [&] { do_all_gather(all, mine); });
}
void Group::reduce_scatter(const at::Tensor& mine, const at::Tensor& all) {
  run(Operation::reduce_scatter, static_cast<int64_t>(all.nbytes()), [&] { do_reduce_scatter(mine, all); });
}
void Group::exchange(std::span<const Message> sends, std::span<const Message> receives) {
  run(Operation::exchange, bytes_of(sends), [&] { do_exchange(sends, receives); });
}
void Group::barrier() {
  run(Operation::barrier, 0, [&] { do_barrier(); });
}

std::unique_ptr<Group> group_of_one(Activity& activity) {
  return std::make_unique<GroupOfOne>(activity);
}

}  // namespace longlora::dist

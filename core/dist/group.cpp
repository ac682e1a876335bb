#include "core/dist/group.h"

#include "core/base/error.h"
#include "core/base/progress.h"

namespace longlora::dist {
namespace {

class GroupOfOne : public Group {
 public:
  explicit GroupOfOne(Activity& activity) : Group(0, 1, activity) {}

 private:
  Work do_all_reduce(at::Tensor) override { return nullptr; }
  Work do_broadcast(at::Tensor, int) override { return nullptr; }
  Work do_all_gather(at::Tensor all, at::Tensor mine) override {
    all.view({-1}).copy_(mine.view({-1}));
    return nullptr;
  }
  Work do_reduce_scatter(at::Tensor mine, at::Tensor all) override {
    mine.view({-1}).copy_(all.view({-1}));
    return nullptr;
  }
  Work do_exchange(std::span<const Message>, std::span<const Message>) override { return nullptr; }  // there is no peer
  Work do_barrier() override { return nullptr; }
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

Pending& Pending::operator=(Pending&& other) noexcept {
  abandon();
  group_ = other.group_;
  operation_ = other.operation_;
  work_ = std::move(other.work_);
  return *this;
}

Pending::~Pending() {
  abandon();
}

void Pending::abandon() noexcept {
  if (work_ == nullptr) return;
  try {
    work_->wait();
  } catch (...) {  // what went wrong first is on its way already
  }
  work_ = nullptr;
}

void Pending::wait() {
  if (work_ == nullptr) return;
  group_->activity_.begin_wait();
  const std::unique_ptr<Work> work = std::move(work_);
  group_->guarded(operation_, [&] { work->wait(); });
  group_->activity_.end_wait();
}

void Group::guarded(Operation operation, const std::function<void()>& work) {
  try {
    work();
  } catch (const c10::Error& error) {
    failed(operation, error.what_without_backtrace());
  } catch (const std::exception& error) {
    failed(operation, error.what());
  }
}

Pending Group::start(Operation operation, int64_t bytes, const std::function<Work()>& work) {
  Traffic& traffic = traffic_[static_cast<size_t>(operation)];
  ++traffic.calls;
  traffic.bytes += bytes;
  activity_.begin_collective(to_string(operation), bytes);
  Work begun;
  guarded(operation, [&] { begun = work(); });
  return {*this, operation, std::move(begun)};
}

Pending Group::start_all_reduce(const at::Tensor& tensor) {
  return start(Operation::all_reduce, static_cast<int64_t>(tensor.nbytes()), [&] { return do_all_reduce(tensor); });
}
Pending Group::start_broadcast(const at::Tensor& tensor, int root) {
  return start(Operation::broadcast, root == rank_ ? static_cast<int64_t>(tensor.nbytes()) : 0,
               [&] { return do_broadcast(tensor, root); });
}
Pending Group::start_all_gather(const at::Tensor& all, const at::Tensor& mine) {
  return start(Operation::all_gather, static_cast<int64_t>(mine.nbytes()), [&] { return do_all_gather(all, mine); });
}
Pending Group::start_reduce_scatter(const at::Tensor& mine, const at::Tensor& all) {
  return start(Operation::reduce_scatter, static_cast<int64_t>(all.nbytes()),
               [&] { return do_reduce_scatter(mine, all); });
}
Pending Group::start_exchange(std::span<const Message> sends, std::span<const Message> receives) {
  return start(Operation::exchange, bytes_of(sends), [&] { return do_exchange(sends, receives); });
}
void Group::barrier() {
  start(Operation::barrier, 0, [&] { return do_barrier(); }).wait();
}

std::unique_ptr<Group> group_of_one(Activity& activity) {
  return std::make_unique<GroupOfOne>(activity);
}

}  // namespace longlora::dist

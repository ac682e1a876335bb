#include "core/dist/job.h"

#include "core/base/error.h"
#include "core/base/hash.h"
#include "core/base/log.h"
#include "core/base/signal.h"

namespace longlora::dist {
namespace {

using namespace std::chrono_literals;
using std::chrono::duration_cast, std::chrono::milliseconds;

// A rank that lost another waits this long for its launcher to end it, so that the error of the rank that failed comes
// before those of the ranks that only miss it.
constexpr milliseconds kGrace = 5s;

constexpr int kMostNamed = 8;  // ranks in a message

constexpr milliseconds kPatience = 60s;  // for the ranks' watches to agree where all stop

int64_t seconds_now() {
  return duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

std::string status_key(int rank) {
  return fmt::format("status/{}", rank);
}

}  // namespace

Place place_of(const Launch& launch, int64_t sequence_size) {
  if (launch.size % sequence_size != 0) {
    usage_error("parallel.sequence {}: the number of ranks must be a multiple of it, and is {} (--nproc N starts N)",
                sequence_size, launch.size);
  }
  const auto size = static_cast<int>(sequence_size);
  return {launch.rank / size, launch.size / size, launch.rank % size, size};
}

Job::Job(Launch launch, milliseconds timeout)
    : launch_(std::move(launch)),
      timeout_(timeout),
      group_(group_of_one(activity_)),
      sequence_group_(group_of_one(activity_)) {
  if (launch_.alone()) return;
  store_ = Store::connect(launch_, timeout_);
  watch_ = std::thread([this] { watch(); });
}

Job::~Job() {
  if (!watch_.joinable()) return;
  {
    const std::lock_guard hold(lock_);
    end_ = true;
  }
  ended_.notify_all();
  watch_.join();
}

void Job::first_then_others(const std::string& name, const std::function<void()>& work) {
  if (launch_.alone()) return work();
  activity_.enter("data");
  if (!first()) store_->wait_for("done/" + name);
  work();
  if (first()) store_->set("done/" + name, "1");
}

std::string Job::of_first(const std::string& name, const std::string& value) {
  if (launch_.alone()) return value;
  const std::string key = "first/" + name;
  if (first()) {
    store_->set(key, value);
    return value;
  }
  store_->wait_for(key);
  return *store_->get(key);
}

void Job::claim_gpu(const at::Device& device) {
  if (launch_.alone() || device.is_cpu()) return;
  const std::vector<Gpu>& gpus = gpu_driver().gpus;
  const auto number = static_cast<size_t>(device.index());
  if (number < gpus.size()) claim_gpu(gpus[number]);
}

void Job::claim_gpu(const Gpu& gpu) {
  if (launch_.alone() || gpu.id.empty()) return;
  const std::string owner_key = "gpu/" + gpu.id + "/rank";
  if (store_->count("gpu/" + gpu.id) == 1) return store_->set(owner_key, std::to_string(launch_.rank));
  store_->wait_for(owner_key);
  const auto [one, other] = std::minmax({std::stoi(*store_->get(owner_key)), launch_.rank});
  usage_error(
      "ranks {} and {} have the same GPU ({}), and each needs one of its own: start fewer ranks a machine, or give "
      "each one (srun --gpus-per-task=1), or say model.device=cpu",
      one, other, gpu.name);
}

void Job::open_group(int64_t sequence_size, const at::Device& device) {
  place_ = place_of(launch_, sequence_size);
  if (launch_.alone()) return;
  activity_.enter("waiting for all ranks");
  if (store_->count("here") == launch_.size) store_->set("all here", "1");  // the slowest may be reading its weights
  store_->wait_for("all here");
  const auto open = [&](const std::string& name, int rank, int size) {
    return connect_group(*store_, {name, rank, size, launch_.local_size == launch_.size}, device, timeout_, activity_,
                         [this] { return others_after_failure(); });
  };
  group_ = open("all", launch_.rank, launch_.size);
  if (place_.sequence_size > 1)
    sequence_group_ = open(fmt::format("sequence {}", place_.data), place_.sequence, place_.sequence_size);
}

void Job::begin_part(int64_t step, int64_t part) {
  point_ = {step, part, 0};
  leave_if_agreed();
}

void Job::go_on() {
  ++point_.place;
  leave_if_agreed();
}

void Job::leave_if_agreed() {
  if (launch_.alone()) return leave_if_stopped();
  if (leaving_.leave_at(point_, std::min(timeout_, kPatience))) throw Stopped();
}

int64_t Job::sum(int64_t value) {
  const at::Tensor sum = at::full({1}, value, at::kLong);
  group_->all_reduce(sum);
  return *sum.const_data_ptr<int64_t>();
}

void Job::check_same(const std::string& what, const std::string& value) {
  const at::Tensor mine = at::empty({1}, at::kLong), all = at::empty({launch_.size}, at::kLong);
  *mine.data_ptr<int64_t>() = static_cast<int64_t>(std::hash<std::string>{}(fingerprint(value)));
  group_->all_gather(all, mine);
  for (int rank = 1; rank < launch_.size; ++rank) {
    if (all.data_ptr<int64_t>()[rank] != all.data_ptr<int64_t>()[0])
      usage_error("rank {} has another {} than rank 0; all ranks of a job need the same", rank, what);
  }
}

// Asks the other ranks to stop when this one has had a signal, and the other way round, and agrees with them where.
class Job::StopWatch {
 public:
  StopWatch(Store& store, const Launch& launch, Leaving& leaving) : store_(store), launch_(launch), leaving_(leaving) {}

  // How long until it should look again.
  [[nodiscard]] milliseconds pause() const {
    return held_ && !agreed_ ? 10ms : std::clamp<milliseconds>(launch_.size * 2ms, 200ms, 1s);
  }

  void look() {
    if (agreed_) return;
    if (!held_ && !asked()) return;
    if (!held_) store_.set(passed_key(launch_.rank), to_text(leaving_.hold()));
    held_ = true;
    if (launch_.first()) decide();
    if (const auto point = store_.get("stop/leave")) {
      leaving_.agree_on(point_of(*point));
      agreed_ = true;
    }
  }

 private:
  static std::string passed_key(int rank) { return fmt::format("stop/passed/{}", rank); }

  bool asked() {
    auto ask = store_.get("stop/asked");
    if (!ask && stop_requested()) {
      ask = fmt::format("{} {}", stop_signal(), launch_.rank);
      store_.set("stop/asked", *ask);
    }
    if (ask) request_stop(std::stoi(*ask), std::stoi(ask->substr(ask->find(' '))));
    return ask.has_value();
  }

  // The first rank, once all have told which point they passed.
  void decide() {
    while (passed_.size() < static_cast<size_t>(launch_.size)) {
      const auto point = store_.get(passed_key(static_cast<int>(passed_.size())));
      if (!point) return;
      passed_.push_back(point_of(*point));
    }
    store_.set("stop/leave", to_text(leave_after(passed_)));
  }

  Store& store_;
  const Launch& launch_;
  Leaving& leaving_;
  bool held_ = false, agreed_ = false;  // held_: and the others were told
  std::vector<Point> passed_;           // by rank
};

// Tells the others now and then what this rank is doing, and the user when that has been the same for too long. A rank that
// waits in an operation is told so by the operation itself.
void Job::watch() {
  const milliseconds pause = std::clamp<milliseconds>(timeout_ / 8, 100ms, 5s);
  std::unique_lock hold(lock_);
  std::optional<Store> store;  // not before there is something to tell: many jobs of a test end at once
  std::optional<StopWatch> stop;
  auto next = Activity::Clock::now() + pause;
  bool told = false;
  const auto look = [&] {
    if (!store) stop.emplace(store.emplace(store_->clone()), launch_, leaving_);
    stop->look();
    if (Activity::Clock::now() < next) return;
    next = Activity::Clock::now() + pause;
    store->set(status_key(launch_.rank), fmt::format("{} {}", seconds_now(), activity_.describe()));
    const bool hangs = !activity_.waiting() && activity_.idle() > timeout_;
    if (hangs && !std::exchange(told, true)) log::warn("rank {}: no progress: {}", launch_.rank, activity_.describe());
    told = told && hangs;
  };
  while (!ended_.wait_for(hold, stop ? stop->pause() : 100ms, [this] { return end_; })) {
    try {
      look();
    } catch (const std::exception&) {  // a connection that broke, or the meeting point is gone, as at the end of a job
      const std::optional<Store> again = connect_again(hold);
      if (end_) return;
      if (!again) {
        log::warn(
            "rank {}: the job's meeting point does not answer; no signal stops this rank any more before its run ends",
            launch_.rank);
        return leaving_.give_up("the job's meeting point is gone");
      }
      store = *again;  // where `stop` has it too
      if (!stop) stop.emplace(*store, launch_, leaving_);
    }
  }
}

// A new connection to the meeting point, where there is one to be had within some seconds and the job does not end meanwhile.
std::optional<Store> Job::connect_again(std::unique_lock<std::mutex>& hold) {
  Launch launch = launch_;
  launch.hosted = true;  // it is there already
  for (const milliseconds pause : {500ms, 1000ms, 2000ms}) {
    if (ended_.wait_for(hold, pause, [this] { return end_; })) break;
    try {
      return Store::connect(launch, 2s);
    } catch (const std::exception&) {  // not yet, or never
    }
  }
  return std::nullopt;
}

std::string Job::others_after_failure() {
  const std::string mine = activity_.describe();
  const auto until = Activity::Clock::now() + std::min(kGrace, timeout_);
  std::string text = fmt::format("\n  rank {}: {}", launch_.rank, mine);
  try {
    int named = 0;
    for (int rank = 0; rank < launch_.size && named < kMostNamed; ++rank) {
      const auto status = rank == launch_.rank ? std::nullopt : store_->get(status_key(rank));
      if (!status) continue;
      const size_t space = status->find(' ');
      text += fmt::format("\n  rank {}: {} (heard of {} s ago)", rank, status->substr(space + 1),
                          seconds_now() - std::stoll(status->substr(0, space)));
      ++named;
    }
  } catch (const std::exception&) {
    text += "\n  the job's meeting point is gone";
  }
  while (!stop_requested() && !others_failed() && Activity::Clock::now() < until) std::this_thread::sleep_for(20ms);
  return text;
}

}  // namespace longlora::dist

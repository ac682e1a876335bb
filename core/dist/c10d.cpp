// Everything that needs c10d's headers: the store, and the groups over Gloo and NCCL. The headers are large, so they are in
// this file alone (and nccl_plugin.cpp).
#define USE_C10D_GLOO
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <dlfcn.h>

#include <filesystem>
#include <thread>

#include "core/base/error.h"
#include "core/base/signal.h"
#include "core/dist/group.h"
#include "core/dist/store.h"

namespace longlora::dist {
namespace {

using std::chrono::milliseconds;

// A message of c10d or Gloo, "[place in their sources] what happened\n...", without the place and what follows.
std::string first_line(const std::string& text) {
  const size_t begin = text.starts_with('[') && text.find("] ") != text.npos ? text.find("] ") + 2 : 0;
  return text.substr(begin, text.find('\n', begin) - begin);
}

std::string short_reason(const std::exception& error) {
  const auto* known = dynamic_cast<const c10::Error*>(&error);
  return first_line(known != nullptr ? known->what_without_backtrace() : error.what());
}

}  // namespace

struct Store::Impl {
  c10::intrusive_ptr<c10d::Store> store;
  int port = 0;
};

// By name: c10d asks for the name of every address that it meets. That of ::1 stands in most machines' own table; the IPv6
// form of 127.0.0.1 may mean seconds of waiting for a name server.
Store Store::host() {
  c10d::TCPStoreOptions options;
  options.port = 0;
  options.isServer = true;
  options.waitWorkers = false;
  try {
    const auto store = c10::make_intrusive<c10d::TCPStore>("localhost", options);
    return Store(std::make_shared<Impl>(Impl{.store = store, .port = store->getPort()}));
  } catch (const std::exception& error) {
    fail("no port on this machine for the ranks to meet at: {}", short_reason(error));
  }
}

Store Store::connect(const Launch& launch, milliseconds timeout) {
  c10d::TCPStoreOptions options;
  options.port = static_cast<uint16_t>(launch.port);
  options.isServer = launch.first() && !launch.hosted;
  options.waitWorkers = false;
  options.timeout = timeout;
  try {
    const auto store = c10::make_intrusive<c10d::TCPStore>(launch.address, options);
    const std::string prefix = "longlora/" + launch.attempt;
    return Store(std::make_shared<Impl>(
        Impl{.store = c10::make_intrusive<c10d::PrefixStore>(prefix, store), .port = store->getPort()}));
  } catch (const std::exception& error) {
    fail("rank {} of {}: cannot {} {}:{}, where the ranks meet: {}", launch.rank, launch.size,
         options.isServer ? "open" : "reach", launch.address, launch.port, short_reason(error));
  }
}

Store Store::clone() const {
  return Store(std::make_shared<Impl>(Impl{.store = impl_->store->clone(), .port = impl_->port}));
}

int Store::port() const {
  return impl_->port;
}

void Store::set(const std::string& key, const std::string& value) {
  impl_->store->set(key, std::vector<uint8_t>(value.begin(), value.end()));
}

std::optional<std::string> Store::get(const std::string& key) {
  if (!impl_->store->check({key})) return std::nullopt;
  const std::vector<uint8_t> value = impl_->store->get(key);
  return std::string(value.begin(), value.end());
}

int64_t Store::count(const std::string& key) {
  return impl_->store->add(key, 1);
}

void Store::wait_for(const std::string& key) {
  try {
    for (auto pause = milliseconds(10); !impl_->store->check({key}); pause = std::min(2 * pause, milliseconds(1000))) {
      if (stop_requested()) throw Stopped("stopped before the first step; run the same command again");
      std::this_thread::sleep_for(pause);
    }
  } catch (const Error&) {
    throw;
  } catch (const std::exception& error) {
    fail("the job's meeting point is gone, another rank must have ended: {}", short_reason(error));
  }
}

namespace {

// Operations of c10d under way; what they read and write stays until they are done.
class C10dWork : public Pending::Work {
 public:
  void add(c10::intrusive_ptr<c10d::Work> work, at::Tensor tensor) {
    works_.push_back(std::move(work));
    tensors_.push_back(std::move(tensor));
  }
  void wait() override {
    for (const auto& work : works_) {
      if (work) work->wait();
    }
  }

 private:
  std::vector<c10::intrusive_ptr<c10d::Work>> works_;
  std::vector<at::Tensor> tensors_;
};

using Backend = c10::intrusive_ptr<c10d::Backend>;

Backend gloo_backend(const c10::intrusive_ptr<c10d::Store>& store, const Members& members, milliseconds timeout) {
  // On several nodes the interface of the host's name, or the one that GLOO_SOCKET_IFNAME names.
  auto options = members.one_machine ? c10d::ProcessGroupGloo::Options::create(timeout)
                                     : c10d::ProcessGroupGloo::Options::create_default(timeout);
  if (members.one_machine) options->devices = {c10d::ProcessGroupGloo::createDeviceForHostname("127.0.0.1")};
  options->threads = 1;  // operations follow one another
  return c10::make_intrusive<c10d::ProcessGroupGloo>(store, members.rank, members.size, options);
}

// By the library built of nccl_plugin.cpp, beside the program. Never unloaded.
Backend nccl_backend(const c10::intrusive_ptr<c10d::Store>& store, const Members& members, milliseconds timeout) {
  using Make = c10d::Backend*(c10d::Store*, int, int, int64_t);
  const auto beside = std::filesystem::read_symlink("/proc/self/exe").parent_path() / "liblonglora_nccl.so";
  void* library = dlopen(beside.c_str(), RTLD_NOW);
  auto* make = library == nullptr ? nullptr : reinterpret_cast<Make*>(dlsym(library, "longlora_nccl_backend"));
  if (make == nullptr) {
    usage_error("several ranks with GPUs need NCCL, with which this program was not built ({}); see docs/parallel.md",
                dlerror());
  }
  return Backend::reclaim(make(store.get(), members.rank, members.size, timeout.count()));
}

class C10dGroup : public Group {
 public:
  C10dGroup(const Store& store, const Members& members, const at::Device& device, milliseconds timeout,
            Activity& activity, OnFailure on_failure)
      : Group(members.rank, members.size, activity), on_failure_(std::move(on_failure)) {
    const auto table = [&](const char* kind) {
      return c10::make_intrusive<c10d::PrefixStore>(members.name + kind, store.impl().store);
    };
    try {
      cpu_ = gloo_backend(table("/gloo"), members, timeout);
      if (device.is_cpu()) return;
      gpu_ = nccl_backend(table("/nccl"), members, timeout);
      std::vector<at::Tensor> first = {at::zeros({1}, device)};
      gpu_->allreduce(first)->wait();  // connects all of them: messages alone would connect pairs
    } catch (const Error&) {
      throw;
    } catch (const std::exception& error) {
      failed("opening the connections between the ranks", short_reason(error));
    }
  }

 private:
  static Work one(c10::intrusive_ptr<c10d::Work> begun, at::Tensor tensor) {
    auto work = std::make_unique<C10dWork>();
    work->add(std::move(begun), std::move(tensor));
    return work;
  }
  c10d::Backend& backend_of(const at::Tensor& tensor) {
    const Backend& backend = tensor.is_cpu() ? cpu_ : gpu_;
    if (!backend) fail("this group of ranks has no way to send tensors on {}", tensor.device().str());
    return *backend;
  }
  Work do_all_reduce(at::Tensor tensor) override {
    std::vector<at::Tensor> tensors = {flat(tensor)};
    return one(backend_of(tensor).allreduce(tensors), tensor);
  }
  Work do_broadcast(at::Tensor tensor, int root) override {
    std::vector<at::Tensor> tensors = {flat(tensor)};
    c10d::BroadcastOptions options;
    options.rootRank = root;
    return one(backend_of(tensor).broadcast(tensors, options), tensor);
  }
  Work do_all_gather(at::Tensor all, at::Tensor mine) override {
    at::Tensor to = flat(all), from = flat(mine);
    return one(backend_of(mine)._allgather_base(to, from), at::Tensor());  // it keeps both
  }
  Work do_reduce_scatter(at::Tensor mine, at::Tensor all) override {
    at::Tensor to = flat(mine), from = flat(all);
    return one(backend_of(mine)._reduce_scatter_base(to, from), at::Tensor());
  }
  // NCCL wants messages that go both ways begun as one.
  Work do_exchange(std::span<const Message> sends, std::span<const Message> receives) override {
    auto work = std::make_unique<C10dWork>();
    ++exchanges_;  // the messages' tag: also of those that are none here
    if (sends.empty() && receives.empty()) return work;
    c10d::Backend& backend = backend_of((sends.empty() ? receives : sends).front().tensor);
    const bool as_one = backend.supportsCoalescing();
    if (as_one) backend.startCoalescing();
    const auto start = [&](const Message& message, bool send) {
      std::vector<at::Tensor> tensors = {flat(message.tensor)};
      auto begun =
          send ? backend.send(tensors, message.peer, exchanges_) : backend.recv(tensors, message.peer, exchanges_);
      work->add(as_one ? nullptr : begun, message.tensor);
    };
    for (const Message& message : receives) start(message, false);
    for (const Message& message : sends) start(message, true);
    if (as_one) work->add(backend.endCoalescing(), at::Tensor());
    return work;
  }
  Work do_barrier() override { return one(cpu_->barrier(), at::Tensor()); }

  [[noreturn]] void failed(Operation operation, const std::string& reason) override {
    failed(to_string(operation), reason);
  }
  [[noreturn]] void failed(const std::string& what, const std::string& reason) {
    const std::string others = on_failure_ ? on_failure_() : "";
    fail("{} between the ranks failed; another rank has ended or does not answer ({}){}", what, first_line(reason),
         others);
  }

  static at::Tensor flat(const at::Tensor& tensor) {
    if (!tensor.is_contiguous()) fail("operations between ranks take contiguous tensors only");
    return tensor.view({-1});
  }

  OnFailure on_failure_;
  int exchanges_ = 0;
  Backend cpu_, gpu_;
};

}  // namespace

std::unique_ptr<Group> connect_group(const Store& store, const Members& members, const at::Device& device,
                                     milliseconds timeout, Activity& activity, OnFailure on_failure) {
  return std::make_unique<C10dGroup>(store, members, device, timeout, activity, std::move(on_failure));
}

}  // namespace longlora::dist

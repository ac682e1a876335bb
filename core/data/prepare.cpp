#include "core/data/prepare.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <exception>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>
#include <utility>

#include "core/base/error.h"
#include "core/base/progress.h"
#include "core/base/signal.h"
#include "core/data/reader.h"
#include "core/io/token_writer.h"

namespace longlora::data {
namespace {

using namespace std::chrono_literals;
constexpr auto kCheckpointEvery = 15s;

// Where the reading stands: `document` documents of inputs[file] are done.
struct Position {
  size_t file = 0;
  int64_t document = 0;
};

struct Work {
  int64_t number = 0;      // in the order of reading
  Position after;          // where to go on once this document is written
  int64_t bytes_read = 0;  // of all inputs, for the progress line
  std::string text;
};

struct Tokens {
  Work work;  // without its text
  int64_t text_bytes = 0;
  std::vector<int32_t> ids;  // empty for an empty document
};

// The threads and the two bounded places between them.
class Pipeline {
 public:
  Pipeline(const text::Tokenizer& tokenizer, const PrepareOptions& options, bool bos, Position from)
      : tokenizer_(tokenizer), options_(options), bos_(bos) {
    const int cores = static_cast<int>(std::thread::hardware_concurrency());
    const int workers = std::max(1, options.threads > 0 ? options.threads : cores);
    threads_.emplace_back([this, from] { guarded([&] { read(from); }); });
    for (int i = 0; i < workers; ++i) threads_.emplace_back([this] { guarded([&] { tokenize(); }); });
  }
  ~Pipeline() {
    close();
    for (std::thread& thread : threads_) thread.join();
  }
  Pipeline(const Pipeline&) = delete;
  Pipeline& operator=(const Pipeline&) = delete;

  enum class State { ready, waiting, end };
  // The next document in order, if it comes within a fifth of a second. Throws what a thread threw.
  State next(Tokens& out) {
    std::unique_lock lock(mutex_);
    const auto ready = [&] { return done_.contains(taken_) || error_ || (read_all_ && taken_ == read_); };
    if (!changed_.wait_for(lock, 200ms, ready)) return State::waiting;
    if (const auto found = done_.find(taken_); found != done_.end()) {
      out = std::move(found->second);
      done_.erase(found);
      ++taken_;
      return State::ready;
    }
    if (error_) std::rethrow_exception(error_);
    return State::end;
  }
  // The document is written: its memory may go to others.
  void release(const Tokens& tokens) {
    const std::lock_guard lock(mutex_);
    in_flight_ -= tokens.text_bytes;
    changed_.notify_all();
  }

 private:
  template <class Body>
  void guarded(Body body) {
    try {
      body();
    } catch (...) {
      const std::lock_guard lock(mutex_);
      if (!error_) error_ = std::current_exception();
      closed_ = true;
      changed_.notify_all();
    }
  }
  void close() {
    const std::lock_guard lock(mutex_);
    closed_ = true;
    changed_.notify_all();
  }

  void read(Position from) {
    int64_t before = 0;  // bytes of the files before this one
    bool wanted = true;
    for (size_t file = 0; file < options_.inputs.size(); ++file) {
      const fs::path& path = options_.inputs[file];
      int64_t document = 0;
      const auto take = [&](Document&& one) {
        ++document;
        if (file == from.file && document <= from.document) return true;
        return wanted = push({0, {file, document}, before + one.consumed, std::move(one.text)});
      };
      if (file >= from.file) read_documents(path, take);
      if (!wanted) return;
      before += static_cast<int64_t>(fs::file_size(path));
    }
    const std::lock_guard lock(mutex_);
    read_all_ = true;
    changed_.notify_all();
  }
  bool push(Work work) {
    const auto bytes = static_cast<int64_t>(work.text.size());
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return closed_ || in_flight_ == 0 || in_flight_ + bytes <= kBytesInFlight; });
    if (closed_) return false;
    in_flight_ += bytes;
    work.number = read_++;
    waiting_.push_back(std::move(work));
    changed_.notify_all();
    return true;
  }
  void tokenize() {
    while (true) {
      Tokens tokens;
      {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [&] { return closed_ || !waiting_.empty() || read_all_; });
        if (closed_ || waiting_.empty()) return;
        tokens.work = std::move(waiting_.front());
        waiting_.pop_front();
      }
      const std::string text = std::exchange(tokens.work.text, {});
      tokens.text_bytes = static_cast<int64_t>(text.size());
      if (!text.empty()) {
        tokens.ids = tokenizer_.encode(text);
        if (bos_) tokens.ids.insert(tokens.ids.begin(), *tokenizer_.bos());
        tokens.ids.push_back(*tokenizer_.eos());
      }
      const std::lock_guard lock(mutex_);
      done_.emplace(tokens.work.number, std::move(tokens));
      changed_.notify_all();
    }
  }

  const text::Tokenizer& tokenizer_;
  const PrepareOptions& options_;
  const bool bos_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool closed_ = false, read_all_ = false;
  int64_t in_flight_ = 0, read_ = 0, taken_ = 0;
  std::deque<Work> waiting_;
  std::map<int64_t, Tokens> done_;
  std::exception_ptr error_;
  std::vector<std::thread> threads_;
};

io::TokenFileInfo describe(const text::Tokenizer& tokenizer, const PrepareOptions& options, bool bos) {
  io::TokenFileInfo info{tokenizer.vocab_size(), tokenizer.fingerprint(), bos, {}};
  for (const fs::path& path : options.inputs) {
    if (input_kind(path) == InputKind::tokens) input_error("{}: holds tokens already, text is needed", path.string());
    std::error_code ec;
    const auto bytes = static_cast<int64_t>(fs::file_size(path, ec));
    if (ec) input_error("{}: {}", path.string(), ec.message());
    info.sources.push_back({path.string(), bytes, fs::last_write_time(path).time_since_epoch().count()});
  }
  return info;
}

}  // namespace

PrepareResult prepare(const text::Tokenizer& tokenizer, const PrepareOptions& options) {
  if (!tokenizer.eos()) input_error("the tokenizer names no EOS token, which ends every document of a token file");
  const bool bos = options.bos == Bos::yes || (options.bos == Bos::automatic && tokenizer.adds_bos());
  if (bos && !tokenizer.bos()) usage_error("a BOS is asked for, but the tokenizer names none");

  io::TokenFileInfo info = describe(tokenizer, options, bos);
  int64_t total_bytes = 0;
  for (const auto& source : info.sources) total_bytes += source.bytes;
  io::TokenWriter writer(options.out, std::move(info), options.overwrite);

  Position at;
  PrepareResult result;
  if (const nlohmann::json& saved = writer.position(); !saved.is_null()) {
    at = {saved.at("file").get<size_t>(), saved.at("document").get<int64_t>()};
    result.empty = saved.at("empty").get<int64_t>();
  }
  const auto position = [&] {
    return nlohmann::json{{"file", at.file}, {"document", at.document}, {"empty", result.empty}};
  };

  Progress progress("tokenizing", total_bytes, "bytes");
  const auto began = std::chrono::steady_clock::now();
  const int64_t tokens_before = writer.tokens();
  const auto speed = [&] {
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
    const double tokens = static_cast<double>(writer.tokens());
    return fmt::format("{} tokens, {} tokens/s", format_count(tokens),
                       format_count((tokens - static_cast<double>(tokens_before)) / std::max(seconds, 1e-3)));
  };
  const auto stop = options.stop ? options.stop : std::function<bool()>(stop_requested);
  auto last_checkpoint = began;
  try {
    Pipeline pipeline(tokenizer, options, bos, at);
    for (Tokens tokens; !stop();) {
      const Pipeline::State state = pipeline.next(tokens);
      if (state == Pipeline::State::end) {
        result.complete = true;
        break;
      }
      if (state == Pipeline::State::waiting) continue;
      if (!tokens.ids.empty()) writer.append(tokens.ids);
      result.empty += tokens.ids.empty() ? 1 : 0;
      at = tokens.work.after;
      pipeline.release(tokens);
      progress.update(tokens.work.bytes_read, speed());
      if (std::chrono::steady_clock::now() - last_checkpoint < kCheckpointEvery) continue;
      writer.checkpoint(position());
      last_checkpoint = std::chrono::steady_clock::now();
    }
  } catch (const Error& error) {
    if (error.code() == Exit::input) writer.discard();  // the input must change, and then nothing of this counts
    throw;
  }
  result.documents = writer.documents();
  result.tokens = writer.tokens();
  if (result.complete && result.tokens == 0) {
    writer.discard();
    const size_t others = options.inputs.size() - 1;
    input_error("{}: no text in {} ({} empty documents)", options.inputs.front().string(),
                others == 0 ? "it" : fmt::format("it and {} more", others), result.empty);
  }
  result.complete ? writer.finish(position()) : writer.checkpoint(position());
  return result;
}

}  // namespace longlora::data

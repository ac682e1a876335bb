#include "core/data/token_source.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>

#include "core/base/error.h"
#include "core/base/hash.h"
#include "core/base/log.h"
#include "core/base/progress.h"
#include "core/base/signal.h"
#include "core/data/glob.h"
#include "core/data/prepare.h"
#include "core/data/reader.h"
#include "core/io/file_lock.h"

namespace longlora::data {
namespace {

[[noreturn]] void stopped() {
  throw Stopped("stopped while tokenizing; what is done is kept, the same command goes on");
}

// A folder that is gone with the object; a file mapped from it stays readable.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (fs::temp_directory_path() / "longlora-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) fail("{}: cannot create a temporary folder", name);
    path_ = name;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  [[nodiscard]] const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

// Names the token file of these texts: the same as long as tokenizer and files (path, size, time) are.
std::string cache_name(const text::Tokenizer& tokenizer, std::span<const fs::path> texts) {
  std::string key = tokenizer.fingerprint();
  for (const fs::path& path : texts) {
    const fs::path absolute = fs::weakly_canonical(path);
    key += fmt::format("\n{} {} {}", absolute.string(), fs::file_size(path),
                       fs::last_write_time(path).time_since_epoch().count());
  }
  return fingerprint(key) + ".bin";
}

void tokenize(const text::Tokenizer& tokenizer, std::vector<fs::path> texts, const fs::path& out,
              const std::function<bool()>& stop) {
  const PrepareOptions options{.inputs = std::move(texts), .out = out, .stop = stop};
  const PrepareResult made = prepare(tokenizer, options);
  if (!made.complete) stopped();
  log::info("tokenized {} documents, {} tokens{}", made.documents, format_count(static_cast<double>(made.tokens)),
            made.empty > 0 ? fmt::format("; {} empty documents left out", made.empty) : "");
}

io::TokenFile open_cached(const text::Tokenizer& tokenizer, const std::vector<fs::path>& texts, const fs::path& folder,
                          const std::function<bool()>& stop) {
  const fs::path file = folder / cache_name(tokenizer, texts);
  std::error_code ec;
  fs::create_directories(folder, ec);
  if (ec) fail("{}: cannot create the folder: {}", folder.string(), ec.message());
  io::FileLock lock(file.string() + ".lock");
  for (bool told = false; !lock.try_lock(); told = true) {
    if (!told) log::info("{}: waiting for the process that tokenizes the same texts", file.string());
    if (stop()) stopped();
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  if (!fs::exists(file)) tokenize(tokenizer, texts, file, stop);
  return io::TokenFile(file);
}

}  // namespace

TokenSource TokenSource::open(const SourceOptions& options) {
  const auto stop = options.stop ? options.stop : std::function<bool()>(stop_requested);
  const std::vector<fs::path> paths = expand(options.patterns);
  std::vector<fs::path> texts;
  for (const fs::path& path : paths) {
    if (input_kind(path) != InputKind::tokens) texts.push_back(path);
  }
  if (!texts.empty() && options.tokenizer == nullptr) {
    input_error("{}: is text, and there is no tokenizer to make tokens of it", texts.front().string());
  }
  std::vector<io::TokenFile> files;
  bool texts_done = texts.empty();
  for (const fs::path& path : paths) {
    if (input_kind(path) == InputKind::tokens) {
      files.emplace_back(path);
    } else if (!std::exchange(texts_done, true)) {  // all texts together, at the place of the first
      if (!options.cache.empty()) {
        files.push_back(open_cached(*options.tokenizer, texts, options.cache, stop));
      } else {
        const TemporaryFolder folder;
        tokenize(*options.tokenizer, texts, folder.path() / "text.bin", stop);
        files.emplace_back(folder.path() / "text.bin");
      }
    }
  }
  for (const io::TokenFile& file : files) {
    if (options.tokenizer != nullptr) file.check_tokenizer(options.tokenizer->fingerprint());
    file.check_vocabulary(options.vocab);
  }
  return TokenSource(std::move(files));
}

TokenSource::TokenSource(std::vector<io::TokenFile> files) : files_(std::move(files)), documents_{0} {
  for (const io::TokenFile& file : files_) {
    const int64_t start = documents_.back();
    starts_.push_back(start);
    for (const int64_t end : file.documents().subspan(1)) documents_.push_back(start + end);
  }
}

TokenSource TokenSource::of_tokens(std::vector<int32_t> ids, std::vector<int64_t> documents,
                                   std::vector<uint8_t> learn) {
  const auto print = [](const auto& all) {
    return longlora::fingerprint({reinterpret_cast<const char*>(all.data()), all.size() * sizeof(all[0])});
  };
  TokenSource source({});
  source.ids_fingerprint_ = print(ids) + print(documents) + print(learn);
  source.ids_ = std::move(ids);
  source.documents_ = std::move(documents);
  source.learn_ = std::move(learn);
  return source;
}

void TokenSource::copy(int64_t begin, std::span<int32_t> out) const {
  if (!ids_.empty()) {
    std::copy_n(ids_.begin() + begin, out.size(), out.begin());
    return;
  }
  auto file = static_cast<size_t>(std::upper_bound(starts_.begin(), starts_.end(), begin) - starts_.begin() - 1);
  while (!out.empty()) {
    const int64_t at = begin - starts_[file];
    const auto part = std::min(out.size(), static_cast<size_t>(files_[file].tokens() - at));
    files_[file].copy(at, out.first(part));
    out = out.subspan(part);
    begin += static_cast<int64_t>(part);
    ++file;
  }
}

std::string TokenSource::fingerprint() const {
  std::string all = ids_fingerprint_;
  for (const io::TokenFile& file : files_) all += file.fingerprint();
  return longlora::fingerprint(all);
}

}  // namespace longlora::data

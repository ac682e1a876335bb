#include "core/base/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <utility>

#include "core/base/error.h"

namespace longlora {
namespace {

// A file descriptor that closes itself.
class Descriptor {
 public:
  Descriptor(const fs::path& path, int flags, int mode = 0644) : fd_(::open(path.c_str(), flags | O_CLOEXEC, mode)) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  [[nodiscard]] int get() const { return fd_; }
  [[nodiscard]] bool ok() const { return fd_ >= 0; }

 private:
  int fd_;
};

fs::path beside(const fs::path& target) {
  fs::path clean = target;
  if (!clean.has_filename()) clean = clean.parent_path();
  return clean.parent_path() / fmt::format(".{}.partial-{}", clean.filename().string(), ::getpid());
}

}  // namespace

std::string read_file(const fs::path& path) {
  std::error_code ec;
  if (fs::is_directory(path, ec)) input_error("{}: is a folder, a file is needed", path.string());
  std::ifstream in(path, std::ios::binary);
  if (!in) input_error("{}: {}", path.string(), std::strerror(errno));
  std::string bytes((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  if (in.bad()) input_error("{}: cannot be read: {}", path.string(), std::strerror(errno));
  return bytes;
}

void sync_path(const fs::path& path) {
  Descriptor fd(path, O_RDONLY);
  if (!fd.ok() || ::fsync(fd.get()) != 0) fail("{}: cannot sync to disk: {}", path.string(), std::strerror(errno));
}

void write_file_atomically(const fs::path& path, std::string_view bytes) {
  const fs::path work = beside(path);
  auto give_up = [&](const char* what) {
    const int reason = errno;
    std::error_code ignored;
    fs::remove(work, ignored);
    fail("{}: cannot {}: {}", path.string(), what, std::strerror(reason));
  };
  {
    Descriptor fd(work, O_WRONLY | O_CREAT | O_TRUNC);
    if (!fd.ok()) give_up("create");
    while (!bytes.empty()) {
      const ssize_t n = ::write(fd.get(), bytes.data(), bytes.size());
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) give_up("write");
      bytes.remove_prefix(static_cast<size_t>(n));
    }
    if (::fsync(fd.get()) != 0) give_up("sync");
  }
  if (::rename(work.c_str(), path.c_str()) != 0) give_up("rename into place");
  sync_path(path.has_parent_path() ? path.parent_path() : fs::path("."));
}

MappedFile::MappedFile(const fs::path& path) {
  Descriptor fd(path, O_RDONLY);
  struct stat status {};
  if (!fd.ok() || ::fstat(fd.get(), &status) != 0) input_error("{}: {}", path.string(), std::strerror(errno));
  if (!S_ISREG(status.st_mode)) input_error("{}: is not a regular file", path.string());
  size_ = static_cast<size_t>(status.st_size);
  if (size_ == 0) return;
  void* address = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, fd.get(), 0);
  if (address == MAP_FAILED) input_error("{}: cannot be mapped: {}", path.string(), std::strerror(errno));
  data_ = static_cast<const std::byte*>(address);
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

AtomicFolder::AtomicFolder(fs::path target, bool overwrite)
    : target_(std::move(target)), work_(beside(target_)), overwrite_(overwrite) {
  if (!target_.has_filename()) target_ = target_.parent_path();
  if (fs::exists(target_) && !overwrite_) {
    usage_error("{}: exists already; choose another folder or pass --overwrite", target_.string());
  }
  std::error_code ec;
  fs::remove_all(work_, ec);
  fs::create_directories(work_, ec);
  if (ec) fail("{}: cannot create the folder: {}", target_.string(), ec.message());
}

AtomicFolder::~AtomicFolder() {
  std::error_code ignored;
  if (!committed_) fs::remove_all(work_, ignored);
}

void AtomicFolder::commit() {
  for (const auto& entry : fs::recursive_directory_iterator(work_)) sync_path(entry.path());
  sync_path(work_);
  std::error_code ec;
  const fs::path old = work_.string() + ".old";
  const bool replace = overwrite_ && fs::exists(target_);
  if (replace) fs::rename(target_, old, ec);
  if (!ec) fs::rename(work_, target_, ec);
  if (ec) fail("{}: cannot rename the finished folder into place: {}", target_.string(), ec.message());
  committed_ = true;
  if (replace) fs::remove_all(old, ec);
  sync_path(target_.has_parent_path() ? target_.parent_path() : fs::path("."));
}

}  // namespace longlora

#include "core/base/file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
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

fs::path folder_of(const fs::path& path) {
  return path.has_parent_path() ? path.parent_path() : fs::path(".");
}

// Without a slash at its end.
fs::path clean(const fs::path& path) {
  return path.has_filename() ? path : path.parent_path();
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
  const fs::path work = folder_of(path) / fmt::format(".{}.partial-{}", path.filename().string(), ::getpid());
  std::error_code ec;
  fs::create_directories(folder_of(path), ec);  // failing, creating the file says why
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
  sync_path(folder_of(path));
}

void check_new_file(const fs::path& path, std::string_view what) {
  std::error_code ec;
  if (!path.has_filename() || fs::is_directory(path, ec))
    usage_error("{} {}: name a file, not a folder", what, path.string());
  if (fs::exists(path, ec)) usage_error("{} {}: exists already; give another name, or remove it", what, path.string());
  fs::path folder = folder_of(path);
  while (!fs::exists(folder, ec) && folder.has_parent_path()) folder = folder.parent_path();
  if (!fs::exists(folder, ec)) folder = ".";
  if (!fs::is_directory(folder, ec) || ::access(folder.c_str(), W_OK | X_OK) != 0) {
    fail("{} {}: no file can be made in {}", what, path.string(), folder.string());
  }
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
    : target_(clean(target)),
      work_(target_.parent_path() / fmt::format(".{}.partial", target_.filename().string())),
      overwrite_(overwrite) {
  if (fs::exists(target_) && !overwrite_) {
    usage_error("{}: exists already; choose another folder or pass --overwrite", target_.string());
  }
  std::error_code ec;
  fs::create_directories(work_, ec);
  if (ec) fail("{}: cannot create the folder: {}", target_.string(), ec.message());
  lock_ = ::open(work_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (lock_ >= 0 && ::flock(lock_, LOCK_EX | LOCK_NB) != 0 &&
      errno == EWOULDBLOCK) {  // some file systems have no locks
    ::close(lock_);
    usage_error("{}: another process is writing it now", target_.string());
  }
  for (const auto& left : fs::directory_iterator(work_)) fs::remove_all(left, ec);  // by a process that was killed
}

AtomicFolder::~AtomicFolder() {
  std::error_code ignored;
  if (!committed_) fs::remove_all(work_, ignored);
  if (lock_ >= 0) ::close(lock_);
}

void AtomicFolder::commit() {
  for (const auto& entry : fs::recursive_directory_iterator(work_)) sync_path(entry.path());
  sync_path(work_);
  std::error_code ec;
  const bool replace = overwrite_ && fs::exists(target_);
  if (!replace) {
    fs::rename(work_, target_, ec);
  } else if (::renameat2(AT_FDCWD, work_.c_str(), AT_FDCWD, target_.c_str(), RENAME_EXCHANGE) != 0) {
    // A file system that cannot exchange two names: for a moment there is none.
    const fs::path old = work_.string() + "-old";
    fs::rename(target_, old, ec);
    if (!ec) fs::rename(work_, target_, ec);
    if (!ec) fs::rename(old, work_, ec);
  }
  if (ec) fail("{}: cannot rename the finished folder into place: {}", target_.string(), ec.message());
  committed_ = true;
  sync_path(folder_of(target_));
  if (replace) fs::remove_all(work_, ec);  // the old one
}

}  // namespace longlora

#include "core/io/atomic_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/base/error.h"
#include "core/base/file.h"

namespace longlora::io {

AtomicFile::AtomicFile(std::filesystem::path path)
    : path_(std::move(path)),
      work_(path_.parent_path() / fmt::format(".{}.partial-{}", path_.filename().string(), ::getpid())) {
  std::error_code ignored;
  if (path_.has_parent_path()) std::filesystem::create_directories(path_.parent_path(), ignored);
  fd_ = ::open(work_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd_ < 0) fail("{}: cannot create: {}", path_.string(), std::strerror(errno));
}

AtomicFile::~AtomicFile() {
  if (fd_ < 0) return;
  ::close(fd_);
  ::unlink(work_.c_str());
}

void AtomicFile::reserve(int64_t bytes) {
  if (bytes > 0 && ::fallocate(fd_, 0, 0, bytes) != 0 && (errno == ENOSPC || errno == EFBIG || errno == EDQUOT)) {
    fail("{}: cannot write its {} bytes: {}", path_.string(), bytes, std::strerror(errno));
  }
}

void AtomicFile::write_at(int64_t offset, std::span<const std::byte> bytes) {
  const int64_t first = offset, size = static_cast<int64_t>(bytes.size());
  while (!bytes.empty()) {
    const ssize_t n = ::pwrite(fd_, bytes.data(), bytes.size(), offset);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail("{}: cannot write: {}", path_.string(), std::strerror(errno));
    bytes = bytes.subspan(static_cast<size_t>(n));
    offset += n;
  }
  (void)::sync_file_range(fd_, first, size, SYNC_FILE_RANGE_WRITE);
}

void AtomicFile::sync() {
  if (::fsync(fd_) != 0) fail("{}: cannot sync to disk: {}", path_.string(), std::strerror(errno));
}

void AtomicFile::commit() {
  sync();
  if (::rename(work_.c_str(), path_.c_str()) != 0) {
    fail("{}: cannot rename into place: {}", path_.string(), std::strerror(errno));
  }
  ::close(fd_);
  fd_ = -1;
  sync_path(path_.has_parent_path() ? path_.parent_path() : fs::path("."));
}

}  // namespace longlora::io

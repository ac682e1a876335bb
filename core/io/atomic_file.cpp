#include "core/io/atomic_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/base/error.h"
#include "core/base/file.h"

namespace longlora::io {
namespace {

// The bytes that were written; fewer than all of them only where the file system refuses direct writing of what is left.
size_t write_all(int fd, int64_t offset, std::span<const std::byte> bytes, const fs::path& path, bool direct) {
  const size_t size = bytes.size();
  while (!bytes.empty()) {
    const ssize_t n = ::pwrite(fd, bytes.data(), bytes.size(), offset);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && direct && errno == EINVAL) break;
    if (n < 0) fail("{}: cannot write: {}", path.string(), std::strerror(errno));
    bytes = bytes.subspan(static_cast<size_t>(n));
    offset += n;
    if (direct && n % AtomicFile::kPage != 0) break;  // what follows is no longer on a page's edge
  }
  return size - bytes.size();
}

}  // namespace

AtomicFile::AtomicFile(std::filesystem::path path)
    : path_(std::move(path)),
      work_(path_.parent_path() / fmt::format(".{}.partial-{}", path_.filename().string(), ::getpid())) {
  std::error_code ignored;
  if (path_.has_parent_path()) std::filesystem::create_directories(path_.parent_path(), ignored);
  fd_ = ::open(work_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd_ < 0) fail("{}: cannot create: {}", path_.string(), std::strerror(errno));
  direct_ = ::open(work_.c_str(), O_WRONLY | O_CLOEXEC | O_DIRECT);
}

AtomicFile::~AtomicFile() {
  if (direct_ >= 0) ::close(direct_);
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
  const auto write = [&](size_t size, bool direct) {
    const size_t done = write_all(direct ? direct_ : fd_, offset, bytes.first(size), path_, direct);
    bytes = bytes.subspan(done);
    offset += static_cast<int64_t>(done);
  };
  const bool alike = (reinterpret_cast<uintptr_t>(bytes.data()) - static_cast<uintptr_t>(offset)) % kPage == 0;
  const auto head = static_cast<size_t>((kPage - offset % kPage) % kPage);  // up to a page's edge
  if (direct_ >= 0 && alike && bytes.size() >= head + kPage) {
    write(head, false);
    write(bytes.size() / kPage * kPage, true);
  }
  write(bytes.size(), false);
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

#include "core/io/append_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "core/base/error.h"

namespace longlora::io {
namespace {

constexpr size_t kBuffer = size_t{1} << 20;

}  // namespace

AppendFile::AppendFile(fs::path path, int64_t size) : path_(std::move(path)), size_(size) {
  fd_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
  struct stat status {};
  const bool ok = fd_ >= 0 && ::fstat(fd_, &status) == 0 && ::ftruncate(fd_, std::min(size, status.st_size)) == 0 &&
                  ::lseek(fd_, 0, SEEK_END) >= 0;
  const int reason = errno;
  if (!ok || status.st_size < size) {
    if (fd_ >= 0) ::close(fd_);
    if (!ok) fail("{}: cannot open for writing: {}", path_.string(), std::strerror(reason));
    fail("{}: has {} bytes where {} were written before; remove it and start afresh", path_.string(), status.st_size,
         size);
  }
  buffer_.reserve(kBuffer);
}

AppendFile::~AppendFile() {
  ::close(fd_);
}

void AppendFile::append(std::span<const std::byte> bytes) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  size_ += static_cast<int64_t>(text.size());
  if (buffer_.size() + text.size() > kBuffer) flush();
  text.size() > kBuffer ? write(text) : void(buffer_.append(text));
}

void AppendFile::flush() {
  write(buffer_);
  buffer_.clear();
}

void AppendFile::write(std::string_view rest) {
  while (!rest.empty()) {
    const ssize_t n = ::write(fd_, rest.data(), rest.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail("{}: cannot write: {}", path_.string(), std::strerror(errno));
    rest.remove_prefix(static_cast<size_t>(n));
  }
}

void AppendFile::sync() {
  flush();
  if (::fsync(fd_) != 0) fail("{}: cannot sync to disk: {}", path_.string(), std::strerror(errno));
}

}  // namespace longlora::io

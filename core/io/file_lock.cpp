#include "core/io/file_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/base/error.h"

namespace longlora::io {

FileLock::FileLock(const fs::path& path)
    : fd_(::open(path.c_str(), (fs::is_directory(path) ? O_RDONLY : O_RDWR | O_CREAT) | O_CLOEXEC, 0644)) {
  if (fd_ < 0) fail("{}: cannot create: {}", path.string(), std::strerror(errno));
}

FileLock::~FileLock() {
  ::close(fd_);
}

bool FileLock::try_lock() {
  return ::flock(fd_, LOCK_EX | LOCK_NB) == 0;
}

}  // namespace longlora::io

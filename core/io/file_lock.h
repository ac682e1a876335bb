// One process at a time: an exclusive lock on a file or folder, released when the object or the process ends.
#pragma once
#include "core/base/file.h"

namespace longlora::io {

class FileLock {
 public:
  // Creates a file if there is nothing of that name. Exit 1 when it cannot be made.
  explicit FileLock(const fs::path& path);
  ~FileLock();
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

  // Whether the lock is ours now; false while another process (or object) has it.
  [[nodiscard]] bool try_lock();

 private:
  int fd_ = -1;
};

}  // namespace longlora::io

// A file written piece by piece that appears under its name complete, at commit(), or not at all.
#pragma once
#include <cstddef>
#include <filesystem>
#include <span>

namespace longlora::io {

class AtomicFile {
 public:
  explicit AtomicFile(std::filesystem::path path);  // exit 1 with the reason when it cannot be created
  ~AtomicFile();                                    // without commit(): what was written is removed
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(std::span<const std::byte> bytes);  // exit 1 with the reason (full disk)
  void sync();                                   // to the disk, still under work_path()
  void commit();                                 // sync, then rename into place
  [[nodiscard]] const std::filesystem::path& work_path() const { return work_; }

 private:
  std::filesystem::path path_, work_;
  int fd_ = -1;
};

}  // namespace longlora::io

// A file written in pieces that appears under its name complete, at commit(), or not at all.
#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>

namespace longlora::io {

class AtomicFile {
 public:
  explicit AtomicFile(std::filesystem::path path);  // exit 1 with the reason when it cannot be created
  ~AtomicFile();                                    // without commit(): what was written is removed
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void reserve(
      int64_t bytes);  // of disk for the whole file, where the file system can: exit 1 when there is too little
  // Exit 1 with the reason (full disk). Several threads may write at once; the system begins to bring it to the disk.
  void write_at(int64_t offset, std::span<const std::byte> bytes);
  void sync();    // to the disk, still under work_path()
  void commit();  // sync, then rename into place
  [[nodiscard]] const std::filesystem::path& work_path() const { return work_; }

 private:
  std::filesystem::path path_, work_;
  int fd_ = -1;
};

}  // namespace longlora::io

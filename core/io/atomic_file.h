// A file written in pieces that appears under its name complete, at commit(), or not at all.
//
// Pieces go to the disk past the page cache (O_DIRECT) where the file system can do that: copying gigabytes into the cache costs
// more time of the cores than all else that is done for a merge (docs/decisions.md).
#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>

namespace longlora::io {

class AtomicFile {
 public:
  static constexpr int64_t kPage = 4096;

  explicit AtomicFile(std::filesystem::path path);  // exit 1 with the reason when it cannot be created
  ~AtomicFile();                                    // without commit(): what was written is removed
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void reserve(
      int64_t bytes);  // of disk for the whole file, where the file system can: exit 1 when there is too little
  // Exit 1 with the reason (full disk). Several threads may write at once. Whole pages whose address and offset in the file
  // are alike modulo kPage go past the cache, the rest through it.
  void write_at(int64_t offset, std::span<const std::byte> bytes);
  void sync();    // to the disk, still under work_path()
  void commit();  // sync, then rename into place
  [[nodiscard]] const std::filesystem::path& work_path() const { return work_; }

 private:
  std::filesystem::path path_, work_;
  int fd_ = -1, direct_ = -1;  // the same file twice; direct_ is -1 where the file system has no such thing
};

}  // namespace longlora::io

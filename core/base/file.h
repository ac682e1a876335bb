// Files: reading whole files, memory maps, and writing so that a file or folder is complete under its name or
// absent.
#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace longlora {

namespace fs = std::filesystem;

// The whole file as bytes. Exit 3 with the path and the system's reason when it cannot be read.
[[nodiscard]] std::string read_file(const fs::path& path);

// Writes beside the target, syncs, renames; makes the folder that it goes into. Exit 1 with the reason (full disk, no
// permission); nothing is left behind.
void write_file_atomically(const fs::path& path, std::string_view bytes);

// For an output named on the command line, before long work: exit 2 when a file of that name is there already (`what`, as
// "--json", is in the message), exit 1 when none could be made.
void check_new_file(const fs::path& path, std::string_view what);

// fsync of a file or folder by path.
void sync_path(const fs::path& path);

// A read-only memory map of a whole file. Movable; the bytes live as long as the object.
class MappedFile {
 public:
  explicit MappedFile(const fs::path& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  [[nodiscard]] std::span<const std::byte> bytes() const { return {data_, size_}; }

 private:
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

// A folder that appears complete or not at all: write into path(), then commit(). Without commit() the
// destructor removes what was written; what a killed process left is removed by the next one with the same target.
// Refuses (exit 2) a target that another process is writing, and one that exists, unless `overwrite`; then the old folder
// is replaced at commit(), in one step.
class AtomicFolder {
 public:
  AtomicFolder(fs::path target, bool overwrite);
  ~AtomicFolder();
  AtomicFolder(const AtomicFolder&) = delete;
  AtomicFolder& operator=(const AtomicFolder&) = delete;

  [[nodiscard]] const fs::path& path() const { return work_; }
  void commit();  // syncs every file and the folder, then renames

 private:
  fs::path target_, work_;
  bool overwrite_, committed_ = false;
  int lock_ = -1;  // on work_
};

}  // namespace longlora

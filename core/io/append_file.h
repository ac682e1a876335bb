// A file that grows at its end: buffered, cut back to a known size when it is opened again, synced when
// asked.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "core/base/file.h"

namespace longlora::io {

class AppendFile {
 public:
  // Creates the file or opens it and cuts it to `size` bytes. Exit 1 when that fails or the file is shorter.
  AppendFile(fs::path path, int64_t size);
  ~AppendFile();  // what was not synced may be lost
  AppendFile(const AppendFile&) = delete;
  AppendFile& operator=(const AppendFile&) = delete;

  // Exit 1 with the reason (full disk).
  void append(std::span<const std::byte> bytes);
  void append(std::string_view text) { append(std::as_bytes(std::span(text.data(), text.size()))); }
  // All bytes so far are on disk afterwards.
  void sync();

  [[nodiscard]] int64_t size() const { return size_; }
  [[nodiscard]] const fs::path& path() const { return path_; }

 private:
  void flush();
  void write(std::string_view rest);

  fs::path path_;
  int fd_ = -1;
  int64_t size_ = 0;
  std::string buffer_;
};

}  // namespace longlora::io

// Zip archives whose members are stored uncompressed, as torch.save writes them, read through a memory map.
#pragma once
#include <cstddef>
#include <map>
#include <span>
#include <string>

#include "core/base/file.h"

namespace longlora::io {

class ZipFile {
 public:
  // Exit 3 naming the file and what is wrong: no zip archive, damaged, or with compressed members.
  explicit ZipFile(const fs::path& path);

  // By name: "archive/data.pkl".
  [[nodiscard]] const std::map<std::string, std::span<const std::byte>>& members() const { return members_; }

 private:
  MappedFile map_;
  std::map<std::string, std::span<const std::byte>> members_;
};

}  // namespace longlora::io

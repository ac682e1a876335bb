#include "core/io/zip_file.h"

#include <cstring>

#include "core/base/error.h"

// Layout: APPNOTE.TXT of PKWARE, sections 4.3.7 (local header), 4.3.12 (central directory), 4.3.14 to 4.3.16 (its end) and
// 4.5.3 (64-bit sizes in an extra field).
namespace longlora::io {
namespace {

constexpr uint32_t kLocal = 0x04034b50, kCentral = 0x02014b50, kEnd = 0x06054b50, kEnd64 = 0x06064b50,
                   kLocator64 = 0x07064b50;

// Little-endian numbers anywhere in the file, every one checked against its end.
class Bytes {
 public:
  Bytes(std::span<const std::byte> bytes, std::string where) : bytes_(bytes), where_(std::move(where)) {}

  template <class T>
  [[nodiscard]] T at(uint64_t offset) const {
    T value;
    std::memcpy(&value, part(offset, sizeof(T)).data(), sizeof(T));
    return value;
  }
  [[nodiscard]] std::span<const std::byte> part(uint64_t offset, uint64_t size) const {
    if (offset > bytes_.size() || size > bytes_.size() - offset) damaged();
    return bytes_.subspan(offset, size);
  }
  [[nodiscard]] std::string text(uint64_t offset, uint64_t size) const {
    const auto found = part(offset, size);
    return {reinterpret_cast<const char*>(found.data()), found.size()};
  }
  [[nodiscard]] uint64_t size() const { return bytes_.size(); }
  [[noreturn]] void damaged() const { input_error("{}: is a damaged or truncated zip archive", where_); }

 private:
  std::span<const std::byte> bytes_;
  std::string where_;
};

struct Directory {
  uint64_t entries, offset;
};

Directory directory_of(const Bytes& file, const std::string& where) {
  constexpr uint64_t kEndSize = 22, kLongestComment = 65535;
  if (file.size() < kEndSize || file.at<uint32_t>(0) != kLocal)
    input_error("{}: is no zip archive as torch.save writes them since torch 1.6", where);
  const uint64_t last = file.size() - kEndSize, first = last > kLongestComment ? last - kLongestComment : 0;
  for (uint64_t at = last + 1; at-- > first;) {
    if (file.at<uint32_t>(at) != kEnd) continue;
    const auto entries = file.at<uint16_t>(at + 10);
    const auto offset = file.at<uint32_t>(at + 16);
    if (entries != 0xffff && offset != 0xffffffff) return {entries, offset};
    if (at < 20 || file.at<uint32_t>(at - 20) != kLocator64) file.damaged();
    const auto end64 = file.at<uint64_t>(at - 12);
    if (file.at<uint32_t>(end64) != kEnd64) file.damaged();
    return {file.at<uint64_t>(end64 + 32), file.at<uint64_t>(end64 + 48)};
  }
  file.damaged();
}

// Size and offset of a member, from the extra field where the header's 32 bits do not hold them.
void take_long_sizes(const Bytes& file, uint64_t extra, uint64_t end, uint64_t& size, uint64_t& stored,
                     uint64_t& offset) {
  for (uint64_t at = extra; at + 4 <= end;) {
    const auto tag = file.at<uint16_t>(at), length = file.at<uint16_t>(at + 2);
    if (tag == 1) {
      uint64_t field = at + 4;
      for (uint64_t* value : {&size, &stored, &offset}) {
        if (*value != 0xffffffff) continue;
        if (field + 8 > at + 4 + length) file.damaged();
        *value = file.at<uint64_t>(field);
        field += 8;
      }
    }
    at += 4 + uint64_t{length};
  }
}

}  // namespace

ZipFile::ZipFile(const fs::path& path) : map_(path) {
  const std::string where = path.string();
  const Bytes file(map_.bytes(), where);
  const Directory directory = directory_of(file, where);
  uint64_t at = directory.offset;
  for (uint64_t i = 0; i < directory.entries; ++i) {
    if (file.at<uint32_t>(at) != kCentral) file.damaged();
    const auto flags = file.at<uint16_t>(at + 8), method = file.at<uint16_t>(at + 10);
    uint64_t stored = file.at<uint32_t>(at + 20), size = file.at<uint32_t>(at + 24),
             offset = file.at<uint32_t>(at + 42);
    const uint64_t name_length = file.at<uint16_t>(at + 28), extra_length = file.at<uint16_t>(at + 30),
                   comment_length = file.at<uint16_t>(at + 32);
    const std::string name = file.text(at + 46, name_length);
    const uint64_t extra = at + 46 + name_length;
    take_long_sizes(file, extra, extra + extra_length, size, stored, offset);
    at = extra + extra_length + comment_length;
    if (method != 0 || (flags & 1) != 0 || stored != size)
      input_error("{}: member '{}' is compressed or encrypted; torch.save stores them as they are", where, name);
    if (file.at<uint32_t>(offset) != kLocal) file.damaged();
    const uint64_t data = offset + 30 + file.at<uint16_t>(offset + 26) + file.at<uint16_t>(offset + 28);
    if (!members_.emplace(name, file.part(data, size)).second) file.damaged();
  }
}

}  // namespace longlora::io

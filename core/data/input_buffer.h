// The bytes of a plain or zstd-compressed file as a stream buffer: constant memory whatever the file's size,
// and the line number at hand for error messages.
#pragma once
#include <cstdint>
#include <memory>
#include <streambuf>
#include <string>
#include <vector>

#include "core/base/file.h"

struct ZSTD_DCtx_s;

namespace longlora::data {

// What happens to byte sequences that are not UTF-8. JSON parsers refuse them, so for JSON each one (by
// Unicode's "maximal subpart" rule) becomes U+FFFD; plain text reaches the tokenizer as it is.
enum class InvalidUtf8 { keep, replace };

class InputBuffer : public std::streambuf {
 public:
  // A name that ends in .zst is decompressed. Exit 3 when the file cannot be read; later also when it is
  // damaged.
  InputBuffer(const fs::path& path, InvalidUtf8 invalid);
  ~InputBuffer() override;

  // The next line without its '\n'; false at the end. Exit 3 when it is longer than `limit` bytes.
  [[nodiscard]] bool read_line(std::string& line, size_t limit);
  // Everything that is left. Exit 3 when that is more than `limit` bytes.
  [[nodiscard]] std::string read_rest(size_t limit);

  [[nodiscard]] int64_t consumed() const { return consumed_; }  // bytes of the file read so far (compressed ones)
  [[nodiscard]] int64_t line() const;                           // line of the next byte, from 1

 protected:
  int_type underflow() override;

 private:
  size_t read_file(char* to, size_t capacity);
  size_t read_plain_text(char* to, size_t capacity);  // after decompression
  void append_valid(size_t fresh);

  fs::path path_;
  InvalidUtf8 invalid_;
  int fd_ = -1;
  std::unique_ptr<ZSTD_DCtx_s, size_t (*)(ZSTD_DCtx_s*)> zstd_;
  std::vector<char> compressed_;
  size_t compressed_at_ = 0, compressed_end_ = 0;
  size_t frame_left_ = 1;  // zstd's hint of what is missing of the current frame; 0 between frames
  std::vector<char> raw_;  // InvalidUtf8::replace: bytes not yet checked
  size_t raw_size_ = 0;
  std::string chunk_;  // what the stream buffer hands out
  int64_t consumed_ = 0, lines_before_ = 0;
};

}  // namespace longlora::data

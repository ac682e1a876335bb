#include "core/data/input_buffer.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "core/base/error.h"
#include "core/base/progress.h"

namespace longlora::data {
namespace {

constexpr size_t kChunk = 256 * 1024;
constexpr int kMaxWindowLog = 31;  // also files made with zstd --long=31; the memory is taken only if a frame asks

struct Sequence {
  size_t length;  // bytes of the character, or of the ill-formed part to be replaced by one U+FFFD
  bool valid;
  bool cut_off;  // the buffer ends inside a so far well-formed sequence
};

// The UTF-8 sequence at `bytes` (Unicode 15, tables 3-7 and 3-8).
Sequence next_sequence(const unsigned char* bytes, size_t size) {
  const unsigned char lead = bytes[0];
  if (lead < 0x80) return {1, true, false};
  if (lead < 0xc2 || lead > 0xf4) return {1, false, false};
  const size_t need = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
  unsigned char low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
  unsigned char high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
  for (size_t i = 1; i < need; ++i) {
    if (i == size) return {i, false, true};
    if (bytes[i] < low || bytes[i] > high) return {i, false, false};
    low = 0x80, high = 0xbf;
  }
  return {need, true, false};
}

}  // namespace

InputBuffer::InputBuffer(const fs::path& path, InvalidUtf8 invalid)
    : path_(path), invalid_(invalid), zstd_(nullptr, ZSTD_freeDCtx) {
  fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  struct stat status {};
  if (fd_ < 0 || ::fstat(fd_, &status) != 0 || S_ISDIR(status.st_mode)) {
    const int reason = fd_ < 0 ? errno : EISDIR;
    if (fd_ >= 0) ::close(fd_);
    input_error("{}: {}", path.string(), std::strerror(reason));
  }
  ::posix_fadvise(fd_, 0, 0, POSIX_FADV_SEQUENTIAL);
  if (path.extension() == ".zst") {
    zstd_.reset(ZSTD_createDCtx());
    ZSTD_DCtx_setParameter(zstd_.get(), ZSTD_d_windowLogMax, kMaxWindowLog);
    compressed_.resize(kChunk);
  }
  raw_.resize(invalid_ == InvalidUtf8::replace ? kChunk : 0);
  chunk_.reserve(kChunk);
}

InputBuffer::~InputBuffer() {
  ::close(fd_);
}

size_t InputBuffer::read_file(char* to, size_t capacity) {
  ssize_t n = 0;
  do {
    n = ::read(fd_, to, capacity);
  } while (n < 0 && errno == EINTR);
  if (n < 0) input_error("{}: cannot be read: {}", path_.string(), std::strerror(errno));
  consumed_ += n;
  return static_cast<size_t>(n);
}

// At least one byte, or 0 at the end of the file.
size_t InputBuffer::read_plain_text(char* to, size_t capacity) {
  if (!zstd_) return read_file(to, capacity);
  ZSTD_outBuffer out{to, capacity, 0};
  while (out.pos == 0) {
    if (compressed_at_ == compressed_end_) {
      compressed_at_ = 0;
      compressed_end_ = read_file(compressed_.data(), compressed_.size());
    }
    const bool at_end = compressed_end_ == 0;
    if (at_end && frame_left_ == 0) return 0;
    ZSTD_inBuffer in{compressed_.data(), compressed_end_, compressed_at_};
    const size_t left = ZSTD_decompressStream(zstd_.get(), &out, &in);
    if (ZSTD_isError(left) != 0) {
      input_error("{}: damaged zstd data: {}", path_.string(), ZSTD_getErrorName(left));
    }
    compressed_at_ = in.pos;
    frame_left_ = left;
    if (at_end && out.pos == 0 && left != 0) {
      input_error("{}: damaged zstd data: the file ends in the middle of a frame", path_.string());
    }
  }
  return out.pos;
}

// Moves raw_[0, raw_size_) to chunk_, ill-formed parts replaced; keeps a sequence that the chunk's end cuts
// in two. `fresh`: how many bytes were just read, 0 at the end of the file.
void InputBuffer::append_valid(size_t fresh) {
  const auto* bytes = reinterpret_cast<const unsigned char*>(raw_.data());
  size_t begin = 0, at = 0;
  while (at < raw_size_) {
    const Sequence sequence = next_sequence(bytes + at, raw_size_ - at);
    if (sequence.cut_off && fresh > 0) break;
    if (!sequence.valid) {
      chunk_.append(raw_.data() + begin, at - begin).append("\xef\xbf\xbd");
      begin = at + sequence.length;
    }
    at += sequence.length;
  }
  chunk_.append(raw_.data() + begin, at - begin);
  std::memmove(raw_.data(), raw_.data() + at, raw_size_ - at);
  raw_size_ -= at;
}

InputBuffer::int_type InputBuffer::underflow() {
  if (gptr() < egptr()) return traits_type::to_int_type(*gptr());
  lines_before_ += std::count(chunk_.begin(), chunk_.end(), '\n');
  chunk_.clear();
  if (invalid_ == InvalidUtf8::keep) {
    chunk_.resize(kChunk);
    chunk_.resize(read_plain_text(chunk_.data(), kChunk));
  } else {
    for (size_t fresh = 1; chunk_.empty() && (fresh > 0 || raw_size_ > 0);) {
      fresh = read_plain_text(raw_.data() + raw_size_, raw_.size() - raw_size_);
      raw_size_ += fresh;
      append_valid(fresh);
    }
  }
  setg(chunk_.data(), chunk_.data(), chunk_.data() + chunk_.size());
  return chunk_.empty() ? traits_type::eof() : traits_type::to_int_type(*gptr());
}

int64_t InputBuffer::line() const {
  return 1 + lines_before_ + std::count(eback(), gptr(), '\n');
}

bool InputBuffer::read_line(std::string& line, size_t limit) {
  line.clear();
  if (underflow() == traits_type::eof()) return false;
  do {
    const auto size = static_cast<size_t>(egptr() - gptr());
    const auto* end = static_cast<const char*>(std::memchr(gptr(), '\n', size));
    const size_t part = end != nullptr ? static_cast<size_t>(end - gptr()) : size;
    if (line.size() + part > limit) {
      input_error("{}:{}: the line is longer than {}", path_.string(), this->line(),
                  format_bytes(static_cast<double>(limit)));
    }
    line.append(gptr(), part);
    setg(eback(), gptr() + part + (end != nullptr ? 1 : 0), egptr());
    if (end != nullptr) return true;
  } while (underflow() != traits_type::eof());
  return true;
}

std::string InputBuffer::read_rest(size_t limit) {
  std::string text;
  while (underflow() != traits_type::eof()) {
    const auto size = static_cast<size_t>(egptr() - gptr());
    if (text.size() + size > limit) {
      input_error("{}: the text is longer than {}, the largest that is tokenized as one document; split the file",
                  path_.string(), format_bytes(static_cast<double>(limit)));
    }
    text.append(gptr(), size);
    setg(eback(), egptr(), egptr());
  }
  return text;
}

}  // namespace longlora::data

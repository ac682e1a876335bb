#include "core/io/tensorboard.h"

#include <unistd.h>

#include <array>
#include <bit>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "core/base/error.h"

namespace longlora::io {
namespace {

constexpr std::array<uint32_t, 256> kCrcTable = [] {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t c = i;
    for (int bit = 0; bit < 8; ++bit) c = (c >> 1) ^ ((c & 1) != 0 ? 0x82f63b78u : 0u);
    table[i] = c;
  }
  return table;
}();

template <class T>
std::string little_endian(T bits) {
  std::string out;
  for (size_t i = 0; i < sizeof(T); ++i) out += static_cast<char>(bits >> (8 * i));
  return out;
}

std::string varint(uint64_t x) {
  std::string out;
  for (; x >= 128; x >>= 7) out += static_cast<char>(x | 128);
  return out + static_cast<char>(x);
}

// Protocol buffer fields by wire type: 0 a varint, 1 eight bytes, 2 a length and bytes, 5 four bytes.
std::string key(uint64_t field, uint64_t wire_type) {
  return varint(field << 3 | wire_type);
}
std::string integer(uint64_t field, int64_t x) {
  return key(field, 0) + varint(static_cast<uint64_t>(x));
}
std::string number(uint64_t field, double x) {
  return key(field, 1) + little_endian(std::bit_cast<uint64_t>(x));
}
std::string number(uint64_t field, float x) {
  return key(field, 5) + little_endian(std::bit_cast<uint32_t>(x));
}
std::string bytes(uint64_t field, std::string_view x) {
  return key(field, 2) + varint(x.size()) + std::string(x);
}

// Event: wall_time = 1, step = 2, file_version = 3, summary = 5, session_log = 7.
std::string event(double wall_time, int64_t step, const std::string& what) {
  return number(1, wall_time) + (step == 0 ? "" : integer(2, step)) + what;
}

std::string masked_crc(std::string_view data) {
  const uint32_t crc = crc32c(data);
  return little_endian(std::rotr(crc, 15) + 0xa282ead8u);
}

std::string record(const std::string& data) {
  const std::string length = little_endian(uint64_t{data.size()});
  return length + masked_crc(length) + data + masked_crc(data);
}

double now() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

}  // namespace

uint32_t crc32c(std::string_view data) {
  uint32_t crc = ~0u;
  for (const char c : data) crc = (crc >> 8) ^ kCrcTable[(crc ^ static_cast<unsigned char>(c)) & 255];
  return ~crc;
}

std::string version_record(double wall_time) {
  return record(event(wall_time, 0, bytes(3, "brain.Event:2")));
}

std::string restart_record(double wall_time, int64_t first_step) {
  return record(event(wall_time, first_step, bytes(7, integer(1, 1))));  // SessionLog.status = START
}

std::string scalar_record(double wall_time, int64_t step, std::span<const Scalar> scalars) {
  std::string summary;  // Summary.value = 1; Value: tag = 1, simple_value = 2
  for (const Scalar& s : scalars) summary += bytes(1, bytes(1, s.tag) + number(2, static_cast<float>(s.value)));
  return record(event(wall_time, step, bytes(5, summary)));
}

EventFile::EventFile(const fs::path& folder, int64_t resumed_step) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) fail("{}: cannot be created: {}", folder.string(), error.message());
  char host[256] = "localhost";
  ::gethostname(host, sizeof host - 1);
  const double time = now();
  file_ = folder / fmt::format("events.out.tfevents.{}.{}.{}", static_cast<int64_t>(time), host, ::getpid());
  out_.open(file_, std::ios::app | std::ios::binary);
  append(version_record(time));
  if (resumed_step > 0) append(restart_record(time, resumed_step + 1));
}

void EventFile::write(int64_t step, std::span<const Scalar> scalars) {
  append(scalar_record(now(), step, scalars));
}

void EventFile::append(const std::string& event) {
  out_ << event << std::flush;
  if (!out_) fail("{}: cannot be written: {}", file_.string(), std::strerror(errno));
}

}  // namespace longlora::io

// Shared memory: poisoned when a block begins, red zones behind what is cut from it, asynchronous copies that arrive as
// late as they may.
#include <cstdlib>
#include <cstring>

#include "cuda/host/block.h"
#include "cuda/host/race.h"

namespace longlora::cuda::host {
namespace {

constexpr size_t kStaticLimit = 48 * 1024;        // as on a GPU
constexpr size_t kStaticArea = 3 * kStaticLimit;  // and its red zones
constexpr size_t kMaxTakes = 64;
constexpr size_t kDynamicSlack = (kMaxTakes + 1) * kRedZone;

size_t round_up(size_t bytes, size_t unit) {
  return (bytes + unit - 1) / unit * unit;
}

unsigned char* dynamic_base() {
  return block().arena + kStaticArea;
}

void make_red_zone(unsigned char* at) {
  std::memset(at, kCanary, kRedZone);
  race::red_zone(at, kRedZone);
  poison(at, kRedZone);
}

bool red_zone_is_whole(const unsigned char* at) {
  unpoison(at, kRedZone);
  for (size_t i = 0; i < kRedZone; ++i) {
    if (at[i] != kCanary) return false;
  }
  return true;
}

void finish_copy(const Copy& copy) {
  unsigned char bytes[16] = {};
  if (copy.valid) std::memcpy(bytes, copy.from, copy.bytes);
  std::memcpy(copy.to, bytes, copy.bytes);
  race::finish_copy(copy.to, copy.bytes);
}

}  // namespace

void begin_shared() {
  Block& b = block();
  if (b.arena == nullptr) {
    b.arena_bytes = round_up(kStaticArea + kSharedLimit + kDynamicSlack, 1024);
    b.arena = static_cast<unsigned char*>(std::aligned_alloc(1024, b.arena_bytes));
    if (b.arena == nullptr) throw LaunchError("no memory for shared memory");
  }
  b.static_used = b.static_taken = b.dynamic_taken = 0;
  b.statics.clear();
  b.takes.clear();
  unpoison(b.arena, b.arena_bytes);
  std::memset(dynamic_base(), kPoison, b.dynamic_bytes + kDynamicSlack);
  std::memset(dynamic_base() + b.dynamic_bytes, kCanary, kRedZone);
  poison(b.arena, b.arena_bytes);
  unpoison(dynamic_base(), b.dynamic_bytes);
}

void end_shared() {
  Block& b = block();
  for (const StaticArray& array : b.statics) {
    if (red_zone_is_whole(array.at + array.bytes)) continue;
    b.error = "somebody wrote past the end of a static array of " + std::to_string(array.bytes) + " bytes";
  }
  for (size_t i = 0; i < b.takes.size(); ++i) {
    if (red_zone_is_whole(dynamic_base() + b.takes[i].offset + b.takes[i].bytes)) continue;
    b.error = "somebody wrote past the end of buffer " + std::to_string(i) + " of dynamic shared memory (" +
              std::to_string(b.takes[i].bytes) + " bytes)";
  }
  if (b.takes.empty() && !red_zone_is_whole(dynamic_base() + b.dynamic_bytes)) {
    b.error =
        "somebody wrote past the end of the " + std::to_string(b.dynamic_bytes) + " bytes of dynamic shared memory";
  }
}

unsigned char* dynamic_shared() {
  return dynamic_base();
}

void* static_shared(const void* key, size_t bytes, size_t alignment) {
  Block& b = block();
  for (const StaticArray& array : b.statics) {
    if (array.key == key) return array.at;
  }
  if (alignment > 128) kernel_error("asks for a static array aligned to " + std::to_string(alignment) + " bytes");
  const size_t begin = round_up(b.static_used, 128);
  b.static_used = begin + bytes + kRedZone;
  b.static_taken += round_up(bytes, 16);
  if (b.static_taken > kStaticLimit || b.static_used > kStaticArea) {
    kernel_error("asks for more than 48 KiB of static shared memory");
  }
  if (b.static_taken + b.dynamic_bytes > kSharedLimit) kernel_error("asks for more shared memory than sm_80 has");
  unsigned char* at = b.arena + begin;
  unpoison(at, bytes);
  std::memset(at, kPoison, bytes);
  unpoison(at + bytes, kRedZone);
  make_red_zone(at + bytes);
  b.statics.push_back({key, at, bytes});
  return at;
}

// Every thread cuts the same buffers in the same order; the first one makes their red zones.
unsigned char* take_shared(unsigned char*& cursor, size_t asked) {
  Block& b = block();
  const size_t bytes = round_up(asked, 16), offset = static_cast<size_t>(cursor - dynamic_base());
  unsigned char* at = cursor;
  cursor += bytes + kRedZone;
  for (const Take& take : b.takes) {
    if (take.offset == offset && take.bytes == bytes) return at;
    if (offset < take.offset + take.bytes + kRedZone && take.offset < offset + bytes + kRedZone) {
      kernel_error("takes " + std::to_string(bytes) + " bytes of dynamic shared memory where another thread took " +
                   std::to_string(take.bytes));
    }
  }
  b.dynamic_taken += bytes;
  if (b.dynamic_taken > b.dynamic_bytes || b.takes.size() == kMaxTakes) {
    kernel_error("takes " + std::to_string(b.dynamic_taken) + " bytes of dynamic shared memory; the launch gave " +
                 std::to_string(b.dynamic_bytes));
  }
  b.takes.push_back({offset, bytes});
  if (b.takes.size() == 1) {  // the end moves with every red zone
    unpoison(dynamic_base() + b.dynamic_bytes, kRedZone);
    std::memset(dynamic_base() + b.dynamic_bytes, kPoison, kRedZone);
  }
  unpoison(at, b.dynamic_bytes - b.dynamic_taken + bytes + kRedZone);
  make_red_zone(at + bytes);
  return at;
}

void copy_async(void* to, const void* from, size_t bytes, bool valid, const char* what, const char* file, int line) {
  Block& b = block();
  Thread& self = *b.current;
  if (const std::string report = race::take_report(); !report.empty()) kernel_error(report);
  self.spot = {what, file, line};
  const auto* begin = static_cast<const unsigned char*>(to);
  if (begin < b.arena || begin + bytes > b.arena + b.arena_bytes) {
    kernel_error("copies to an address outside of shared memory at " + to_string(self.spot));
  }
  if (reinterpret_cast<uintptr_t>(to) % bytes != 0 || (valid && reinterpret_cast<uintptr_t>(from) % bytes != 0)) {
    kernel_error("copies from or to an address that is not aligned to " + std::to_string(bytes) + " bytes at " +
                 to_string(self.spot));
  }
  if (valid) {  // a stray source shows here
    unsigned char stray[16];
    std::memcpy(stray, from, bytes);
    asm volatile("" ::"r"(stray) : "memory");
  }
  std::memset(to, kPoison, bytes);  // NaN in every type
  race::issue_copy(to, bytes);
  const Copy copy{to, from, bytes, valid, self.commits};
  if (options().eager_copies) {
    finish_copy(copy);
  } else {
    self.copies.push_back(copy);
  }
}

void commit_copies() {
  ++block().current->commits;
}

void wait_copies(int groups_left, const char* file, int line) {
  Thread& self = *block().current;
  self.spot = {"cp_async_wait", file, line};
  size_t done = 0;
  while (done < self.copies.size() && self.copies[done].group < self.commits - groups_left) {
    finish_copy(self.copies[done++]);
  }
  self.copies.erase(self.copies.begin(), self.copies.begin() + static_cast<std::ptrdiff_t>(done));
}

void note_atomic(const void* at, size_t bytes) {
  race::atomic(at, bytes);
}

}  // namespace longlora::cuda::host

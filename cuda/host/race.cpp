#include "cuda/host/race.h"

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "cuda/host/block.h"

namespace longlora::cuda::host::race {
namespace {

struct Access {
  uint32_t step;  // of the thread's own clock; 0: none
  uint16_t thread;
  uint8_t flags;
};
enum : uint8_t { kWritten = 1, kAtomic = 2, kPending = 4, kRedZoneByte = 8 };

struct Byte {
  Access writer;      // its flags are the byte's
  Access readers[3];  // the last; the one before, if of the same warp; the last of another warp
};

struct State {
  uintptr_t base = 0;
  size_t bytes = 0;
  std::vector<Byte> shadow;
  unsigned threads = 0;
  std::vector<uint32_t> clocks;  // [thread][other]: the other's steps that the thread is ordered after
  std::vector<uint32_t> joined;
  std::string report;
  bool watching = false;
};

State& state() {
  static thread_local State value;
  return value;
}
thread_local constinit uintptr_t arena_base = 0;
thread_local constinit size_t arena_size = 0;

void complain(const std::string& what, const Byte* at, const Access* other) {
  State& s = state();
  if (!s.report.empty()) return;
  Block& b = block();
  const size_t offset = static_cast<size_t>(at - s.shadow.data());
  s.report = what + " at byte " + std::to_string(offset) + " of shared memory";
  const size_t dynamic = static_cast<size_t>(dynamic_shared() - b.arena);
  for (size_t i = 0; i < b.takes.size(); ++i) {
    const size_t begin = dynamic + b.takes[i].offset;
    if (offset >= begin && offset < begin + b.takes[i].bytes + kRedZone) {
      s.report = what + " at byte " + std::to_string(offset - begin) + " of buffer " + std::to_string(i);
    }
  }
  s.report += " after " + to_string(b.current->spot);
  if (other != nullptr) {
    s.report += ", against thread " + std::to_string(other->thread) + ", last seen at " +
                to_string(b.threads[other->thread].spot);
  }
}

bool ordered(const uint32_t* mine, unsigned self, const Access& other) {
  return other.step == 0 || other.thread == self || mine[other.thread] >= other.step;
}

struct View {
  Byte *begin, *end;
  unsigned self;
  const uint32_t* clock;
  Access stamp;
};

// The shadow of [at, at + bytes), or nothing where that is no shared memory of a running block.
bool look(const void* at, size_t bytes, View& view) {
  const uintptr_t offset = reinterpret_cast<uintptr_t>(at) - arena_base;
  if (offset >= arena_size || place == nullptr) return false;
  State& s = state();
  const unsigned self = block().current->index;
  const uint32_t* clock = &s.clocks[size_t{self} * s.threads];
  Byte* begin = s.shadow.data() + offset;
  view = {
      begin, begin + std::min(bytes, arena_size - offset), self, clock, {clock[self], static_cast<uint16_t>(self), 0}};
  return true;
}

void write_bytes(const View& v, uint8_t flags, const char* what, bool is_atomic) {
  for (Byte* byte = v.begin; byte != v.end; ++byte) {
    const uint8_t old = byte->writer.flags;
    if ((old & kRedZoneByte) != 0) return complain(std::string(what) + " past the end of a buffer", byte, nullptr);
    if ((old & kPending) != 0)
      complain(std::string(what) + " where an asynchronous copy is under way", byte, &byte->writer);
    if (!(is_atomic && (old & kAtomic) != 0) && !ordered(v.clock, v.self, byte->writer)) {
      complain(std::string("race: ") + what + ", written by another thread without a barrier between,", byte,
               &byte->writer);
    }
    for (Access& reader : byte->readers) {
      if (!ordered(v.clock, v.self, reader)) {
        complain(std::string("race: ") + what + ", read by another thread without a barrier between,", byte, &reader);
      }
      reader.step = 0;
    }
    byte->writer = v.stamp;
    byte->writer.flags = flags;
  }
}

}  // namespace

void begin_block(unsigned threads) {
  State& s = state();
  Block& b = block();
  arena_base = reinterpret_cast<uintptr_t>(b.arena);
  arena_size = b.arena_bytes;
  if (s.shadow.size() != b.arena_bytes) {
    s.shadow.assign(b.arena_bytes, {});
  } else {  // static arrays come first; what of the rest was used is known
    const size_t dynamic = static_cast<size_t>(dynamic_shared() - b.arena);
    const size_t end = std::min(b.arena_bytes, dynamic + b.dynamic_bytes + 65 * kRedZone);
    std::fill(s.shadow.begin(), s.shadow.begin() + static_cast<std::ptrdiff_t>(dynamic), Byte{});
    std::fill(s.shadow.begin() + static_cast<std::ptrdiff_t>(dynamic),
              s.shadow.begin() + static_cast<std::ptrdiff_t>(end), Byte{});
  }
  s.threads = threads;
  s.clocks.assign(size_t{threads} * threads, 0);
  for (unsigned t = 0; t < threads; ++t) s.clocks[size_t{t} * threads + t] = 1;
  s.report.clear();
}

void synchronise(const std::vector<unsigned>& threads) {
  State& s = state();
  s.joined.assign(s.threads, 0);
  for (const unsigned t : threads) {
    const uint32_t* clock = &s.clocks[size_t{t} * s.threads];
    for (unsigned u = 0; u < s.threads; ++u) s.joined[u] = std::max(s.joined[u], clock[u]);
  }
  for (const unsigned t : threads) {
    uint32_t* clock = &s.clocks[size_t{t} * s.threads];
    std::copy(s.joined.begin(), s.joined.end(), clock);
    ++clock[t];
  }
}

void read(const void* at, size_t bytes) {
  View v;
  if (!look(at, bytes, v)) return;
  for (Byte* byte = v.begin; byte != v.end; ++byte) {
    const uint8_t flags = byte->writer.flags;
    if ((flags & kRedZoneByte) != 0) return complain("reads past the end of a buffer", byte, nullptr);
    if ((flags & kPending) != 0) complain("reads what an asynchronous copy has yet to bring", byte, &byte->writer);
    if ((flags & kWritten) == 0 && (flags & kPending) == 0) complain("reads what nobody wrote", byte, nullptr);
    if (!ordered(v.clock, v.self, byte->writer)) {
      complain("race: reads what another thread wrote, without a barrier between,", byte, &byte->writer);
    }
    Access* readers = byte->readers;
    if (readers[0].step != 0 && readers[0].thread != v.self) {
      readers[readers[0].thread / 32 == v.self / 32 ? 1 : 2] = readers[0];
    }
    readers[0] = v.stamp;
  }
}

void write(const void* at, size_t bytes) {
  View v;
  if (look(at, bytes, v)) write_bytes(v, kWritten, "writes", false);
}

void atomic(const void* at, size_t bytes) {
  View v;
  if (look(at, bytes, v)) write_bytes(v, kWritten | kAtomic, "changes atomically", true);
}

void issue_copy(const void* to, size_t bytes) {
  View v;
  if (look(to, bytes, v)) write_bytes(v, kPending, "copies", false);
}

void finish_copy(const void* to, size_t bytes) {
  View v;
  if (!look(to, bytes, v)) return;
  for (Byte* byte = v.begin; byte != v.end; ++byte) {
    byte->writer = v.stamp;
    byte->writer.flags = kWritten;
  }
}

void red_zone(const void* at, size_t bytes) {
  View v;
  if (!look(at, bytes, v)) return;
  for (Byte* byte = v.begin; byte != v.end; ++byte) {
    *byte = {};
    byte->writer.flags = kRedZoneByte;
  }
}

std::string take_report() {
  State& s = state();
  if (s.report.empty()) return {};
  return std::exchange(s.report, {});
}

}  // namespace longlora::cuda::host::race

// What g++ -fsanitize=thread calls before every access. These must not throw and need no locks: threads take turns.
namespace race = longlora::cuda::host::race;
#define LONGLORA_HOOKS(n)                    \
  void __tsan_read##n(void* at) {            \
    race::read(at, n);                       \
  }                                          \
  void __tsan_write##n(void* at) {           \
    race::write(at, n);                      \
  }                                          \
  void __tsan_unaligned_read##n(void* at) {  \
    race::read(at, n);                       \
  }                                          \
  void __tsan_unaligned_write##n(void* at) { \
    race::write(at, n);                      \
  }                                          \
  void __tsan_volatile_read##n(void* at) {   \
    race::read(at, n);                       \
  }                                          \
  void __tsan_volatile_write##n(void* at) {  \
    race::write(at, n);                      \
  }
extern "C" {
LONGLORA_HOOKS(1)
LONGLORA_HOOKS(2)
LONGLORA_HOOKS(4)
LONGLORA_HOOKS(8)
LONGLORA_HOOKS(16)
void __tsan_read_range(void* at, unsigned long bytes) {
  race::read(at, bytes);
}
void __tsan_write_range(void* at, unsigned long bytes) {
  race::write(at, bytes);
}
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
}

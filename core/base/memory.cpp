#include "core/base/memory.h"

#include <malloc.h>

#include <fstream>
#include <sstream>
#include <string>

namespace longlora {
namespace {

// A "Key:  123 kB" line of a /proc file, in bytes; 0 when it is not there.
int64_t proc_bytes(const char* file, const std::string& key) {
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with(key + ":")) {
      std::istringstream rest(line.substr(key.size() + 1));
      int64_t kib = 0;
      rest >> kib;
      return kib * 1024;
    }
  }
  return 0;
}

}  // namespace

int64_t available_memory() {
  return proc_bytes("/proc/meminfo", "MemAvailable");
}
void keep_freed_memory() {
  mallopt(M_MMAP_MAX, 0);                 // large blocks from the heap too, not each from a map of its own
  mallopt(M_TRIM_THRESHOLD, 2047 << 20);  // and the heap's end is not given back
  mallopt(M_TOP_PAD, 64 << 20);
}

int64_t peak_memory() {
  return proc_bytes("/proc/self/status", "VmHWM");
}

}  // namespace longlora

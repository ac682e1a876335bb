#include "core/base/memory.h"

#include <malloc.h>

#include <algorithm>
#include <fstream>
#include <optional>
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

// The value of a "key 123" line, 0 when it is not there.
int64_t stat_value(const std::string& file, const std::string& key) {
  std::ifstream in(file);
  std::string name;
  for (int64_t value = 0; in >> name >> value;) {
    if (name == key) return value;
  }
  return 0;
}

// The number in a file of one line; empty where there is none ("max").
std::optional<int64_t> number_in(const std::string& file) {
  std::ifstream in(file);
  int64_t value = 0;
  return in >> value ? std::optional(value) : std::nullopt;
}

// What the limits of this process's control group leave (cgroup v2: a batch job's memory), or the largest number.
int64_t left_in_group() {
  std::ifstream in("/proc/self/cgroup");
  std::string path;
  while (std::getline(in, path) && !path.starts_with("0::")) {
  }
  int64_t left = INT64_MAX;
  for (path = path.starts_with("0::") ? path.substr(3) : "/";; path = path.substr(0, path.rfind('/'))) {
    const std::string folder = "/sys/fs/cgroup" + (path == "/" ? "" : path);
    const auto limit = number_in(folder + "/memory.max"), used = number_in(folder + "/memory.current");
    // Pages of files count as used and are given back when they are needed.
    if (limit && used) left = std::min(left, *limit - *used + stat_value(folder + "/memory.stat", "inactive_file"));
    if (path.empty() || path == "/") return left;
  }
}

}  // namespace

int64_t available_memory() {
  return std::min(proc_bytes("/proc/meminfo", "MemAvailable"), left_in_group());
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

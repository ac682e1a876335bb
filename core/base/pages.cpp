#include "core/base/pages.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>

namespace longlora {
namespace {

void advise(std::span<const std::byte> bytes, bool inner, int advice) {
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto begin = reinterpret_cast<uintptr_t>(bytes.data()), end = begin + bytes.size();
  const uintptr_t up = (begin + page - 1) / page * page, down = end / page * page;
  const uintptr_t first = inner ? up : begin / page * page, last = inner ? down : end;
  if (first < last) (void)::madvise(reinterpret_cast<void*>(first), last - first, advice);  // no more than a hint
}

}  // namespace

void prefetch_pages(std::span<const std::byte> bytes) {
  advise(bytes, false, MADV_WILLNEED);
}

void release_pages(std::span<const std::byte> bytes) {
  advise(bytes, true, MADV_DONTNEED);
}

void expect_few_pages(std::span<const std::byte> bytes) {
  advise(bytes, false, MADV_RANDOM);
}

}  // namespace longlora

// Race mode: kernels compiled with -fsanitize=thread, whose hooks come to race.cpp instead of ThreadSanitizer's runtime.
// Every byte of shared memory remembers who wrote and who read it last, at which of its own steps; a vector clock for
// each thread says which steps of the others it is ordered after (FastTrack, Flanagan and Freund, PLDI 2009). Barriers
// order threads; shuffles and mma do not. Races between blocks are not looked for.
#pragma once
#include <cstddef>
#include <string>
#include <vector>

namespace longlora::cuda::host::race {

#ifdef LONGLORA_RACE
void begin_block(unsigned threads);
void synchronise(const std::vector<unsigned>& threads);
void read(const void* at, size_t bytes);
void write(const void* at, size_t bytes);
void atomic(const void* at, size_t bytes);
void issue_copy(const void* to, size_t bytes);
void finish_copy(const void* to, size_t bytes);
void red_zone(const void* at, size_t bytes);
// The first mistake since the last call, else empty. Hooks must not throw, so the runtime asks.
[[nodiscard]] std::string take_report();
#else
inline void begin_block(unsigned) {}
inline void synchronise(const std::vector<unsigned>&) {}
inline void read(const void*, size_t) {}
inline void write(const void*, size_t) {}
inline void atomic(const void*, size_t) {}
inline void issue_copy(const void*, size_t) {}
inline void finish_copy(const void*, size_t) {}
inline void red_zone(const void*, size_t) {}
inline std::string take_report() {
  return {};
}
#endif

}  // namespace longlora::cuda::host::race

// Two settings that libraries read from the environment before main, where the user did not make them (docs/decisions.md):
//
//   GOMP_SPINCOUNT=10000                     A thread that waits for others of its OpenMP team spins for a while before it
//                                            sleeps. libgomp's own bound, 300,000 turns, is 3 to 16 ms: on cores that others
//                                            use as well, waiting threads burn the time that the awaited ones need.
//   GLIBC_TUNABLES=glibc.malloc.hugetlb=1    Memory in huge pages where Linux gives them on request, as it mostly does.
//
// glibc reads its tunables when the program is loaded, and libgomp its bound in its ELF constructor. The entries of
// .preinit_array run before any library's constructor; from there the program starts itself once more with the settings.
// That costs what loading costs, 20 ms; from main it would cost LibTorch's start as well, 170 ms.
#include <sys/auxv.h>
#include <unistd.h>

#include <cstddef>

namespace {

// Without the library's functions, which may not have started yet.
bool names(const char* variable, const char* name) {
  for (; *name != '\0'; ++variable, ++name)
    if (*variable != *name) return false;
  return *variable == '=';
}

// If this fails, the program simply goes on without.
__attribute__((no_sanitize("address", "undefined"))) void start_again_with_settings(int, char** argv,
                                                                                    char** environment) {
  constexpr size_t kMost = 4096;
  static char* longer[kMost + 3];
  static char bound[] = "GOMP_SPINCOUNT=10000", huge_pages[] = "GLIBC_TUNABLES=glibc.malloc.hugetlb=1";
  bool has_bound = false, has_tunables = false;
  size_t count = 0;
  for (; environment[count] != nullptr; ++count) {
    if (count == kMost) return;
    longer[count] = environment[count];
    has_bound |= names(environment[count], "GOMP_SPINCOUNT") || names(environment[count], "OMP_WAIT_POLICY");
    has_tunables |= names(environment[count], "GLIBC_TUNABLES");
  }
  if (has_bound && has_tunables) return;
  if (::getauxval(AT_SECURE) != 0) return;  // glibc may have taken its tunables away, each time
  if (!has_bound) longer[count++] = bound;
  if (!has_tunables) longer[count++] = huge_pages;
  // The name it was started by, so that the process keeps its name. No AT_BASE: started through ld.so, whose name it is.
  const char* program = reinterpret_cast<const char*>(::getauxval(AT_EXECFN));
  if (program != nullptr && ::getauxval(AT_BASE) != 0) ::execve(program, argv, longer);
}

__attribute__((section(".preinit_array"), used)) void (*const kFirst)(int, char**, char**) = start_again_with_settings;

}  // namespace

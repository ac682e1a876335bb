// A thread that waits for others of its OpenMP team spins for a while before it sleeps. libgomp's own bound, 300,000
// turns, is 3 to 16 ms: on cores that others use as well, waiting threads burn the time that the awaited ones need. This
// file sets a smaller one (docs/decisions.md).
//
// libgomp reads GOMP_SPINCOUNT once, in its ELF constructor, long before main. The entries of .preinit_array run before
// any library's constructor; from there the program starts itself once more with the variable. That costs what loading
// costs, 20 ms; from main it would cost LibTorch's start as well, 170 ms.
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

// If this fails, the program simply goes on with libgomp's bound.
__attribute__((no_sanitize("address", "undefined"))) void start_again_with_a_bound(int, char** argv,
                                                                                   char** environment) {
  constexpr size_t kMost = 4096;
  static char* longer[kMost + 2];
  static char bound[] = "GOMP_SPINCOUNT=10000";
  size_t count = 0;
  for (; environment[count] != nullptr; ++count) {
    if (count == kMost || names(environment[count], "GOMP_SPINCOUNT") || names(environment[count], "OMP_WAIT_POLICY"))
      return;
    longer[count] = environment[count];
  }
  longer[count] = bound;
  // The name it was started by, so that the process keeps its name. No AT_BASE: started through ld.so, whose name it is.
  const char* program = reinterpret_cast<const char*>(::getauxval(AT_EXECFN));
  if (program != nullptr && ::getauxval(AT_BASE) != 0) ::execve(program, argv, longer);
}

__attribute__((section(".preinit_array"), used)) void (*const kFirst)(int, char**, char**) = start_again_with_a_bound;

}  // namespace

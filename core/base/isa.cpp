#include "core/base/isa.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <vector>

#include "core/base/error.h"
#include "core/base/nearest.h"

namespace longlora {
namespace {

struct Variable {
  const char* name;
  std::array<const char*, 4> values;  // for each Isa, as the library spells it
};

constexpr std::array<const char*, 4> kNames = {"baseline", "avx2", "avx512", "amx"};
constexpr std::array<Variable, 3> kVariables = {{
    {"ATEN_CPU_CAPABILITY", {"default", "avx2", "avx512", "avx512"}},
    {"ONEDNN_MAX_CPU_ISA", {"SSE41", "AVX2", "AVX512_CORE_BF16", "AVX512_CORE_AMX"}},
    {"MKL_ENABLE_INSTRUCTIONS", {"SSE4_2", "AVX2", "AVX512", "AVX512_E4"}},
}};

#if defined(__x86_64__)
// Whether the processor has AMX for bfloat16 and Linux (5.16 or newer) lets this process use it, which has to be asked for.
bool may_use_amx() {
  constexpr long kRequestPermission = 0x1023,
                 kTileData = 18;  // ARCH_REQ_XCOMP_PERM and the state's number, asm/prctl.h
  return __builtin_cpu_supports("amx-tile") && __builtin_cpu_supports("amx-bf16") &&
         ::syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}
#endif

}  // namespace

std::string_view to_string(Isa isa) {
  return kNames[static_cast<size_t>(isa)];
}

Isa processor_isa() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512cd") &&
      __builtin_cpu_supports("avx512bf16")) {
    static const bool amx = may_use_amx();
    return amx ? Isa::amx : Isa::avx512;
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2"))
    return Isa::avx2;
#endif
  return Isa::baseline;
}

void limit_isa(const std::string& name, Isa has) {
  const auto* const found = std::find(kNames.begin(), kNames.end(), name);
  if (found == kNames.end()) {
    const std::string nearest = did_you_mean(name, std::vector<std::string>(kNames.begin(), kNames.end()));
    usage_error("--isa {}: unknown instruction set{} Give baseline, avx2, avx512 or amx", name,
                nearest.empty() ? "." : nearest);
  }
  const auto isa = static_cast<Isa>(found - kNames.begin());
  if (isa > has) {
    usage_error("--isa {}: programs can use {} at most on this machine{}", name, to_string(has),
                isa == Isa::avx512 ? " (avx512 includes AVX-512's bfloat16 instructions)" : "");
  }
  for (const Variable& variable : kVariables)
    ::setenv(variable.name, variable.values[static_cast<size_t>(isa)], /*overwrite=*/1);
}

bool isa_is_limited() {
  return std::any_of(kVariables.begin(), kVariables.end(),
                     [](const Variable& variable) { return std::getenv(variable.name) != nullptr; });
}

void take_isa_option(int& argc, char**& argv) {
  const std::string first = argc > 1 ? argv[1] : "";
  int words = 0;
  if (first == "--isa") {
    if (argc < 3) usage_error("--isa needs a name: baseline, avx2, avx512 or amx");
    limit_isa(argv[2]);
    words = 2;
  } else if (first.starts_with("--isa=")) {
    limit_isa(first.substr(6));
    words = 1;
  }
  argv[words] = argv[0];
  argv += words;
  argc -= words;
}

}  // namespace longlora

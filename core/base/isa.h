// The instruction sets that numeric code comes in, and the limit that --isa sets: a machine then computes like one
// that has no more. The limit is kept in the variables that LibTorch, oneDNN and MKL read themselves
// (ATEN_CPU_CAPABILITY, ONEDNN_MAX_CPU_ISA, MKL_ENABLE_INSTRUCTIONS): they are inherited by every process that is
// started, and our own kernels follow LibTorch (core/ops/cpu_kernels.h).
#pragma once
#include <string>
#include <string_view>

namespace longlora {

// From the smallest to the largest. baseline: what every processor of its kind has; avx512: with bfloat16; amx: with
// bfloat16 too, and with the operating system's leave to use tiles.
enum class Isa { baseline, avx2, avx512, amx };

[[nodiscard]] std::string_view to_string(Isa isa);

// The largest that this processor has and Linux lets programs use; AMX has to be asked for, which the first call does.
[[nodiscard]] Isa processor_isa();

// Limits this process and those that it starts from now on. The libraries read their variables once, when they first
// compute, so call it before. Exit 2: `name` is no set, or more than the processor `has`.
void limit_isa(const std::string& name, Isa has = processor_isa());

// Whether there is a limit, from --isa or from outside.
[[nodiscard]] bool isa_is_limited();

// The option in front of all others: "--isa NAME" or "--isa=NAME" as argv[1] is obeyed and taken out.
void take_isa_option(int& argc, char**& argv);

}  // namespace longlora

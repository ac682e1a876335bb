// The namespace of the instruction set that this file is compiled for: the same kernels exist several times,
// in longlora::cpu_baseline, longlora::cpu_avx2, longlora::cpu_avx512 and longlora::cpu_amx
// (scripts/cmake/CpuKernels.cmake). Kernels take raw pointers, sizes and strides, work on the index range
// that the caller gives (the caller owns the threads), and include neither torch nor std templates.
#pragma once
#include <stdint.h>

#define LONGLORA_CONCAT2(a, b) a##b
#define LONGLORA_CONCAT(a, b) LONGLORA_CONCAT2(a, b)
#define LONGLORA_CPU_NAMESPACE LONGLORA_CONCAT(cpu_, LONGLORA_ISA)

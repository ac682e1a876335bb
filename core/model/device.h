// Where the model lives, and what has to be set up once before the first tensor.
#pragma once
#include <ATen/ATen.h>

#include <cstdint>
#include <string>

namespace longlora::model {

// "cpu", "cuda", or "auto": a GPU wherever there is an NVIDIA driver, else the CPU. On a machine with a driver LibTorch's CUDA
// library is loaded from beside its CPU library here and not before: the program starts quickly and runs on machines without
// CUDA. The GPU, number gpu_number(), is made the current one, and the program's kernels are tried on it: where they do not run,
// rank 0 of the machine warns, with the reason and the way out, and LibTorch's operations stand in for them.
// Exit 2 when a GPU is asked for and cannot be had, and with "auto" where there is a driver and no GPU can be used: nobody
// should train for days on a CPU because a library was missing.
[[nodiscard]] at::Device open_device(const std::string& name, int local_rank = 0);

// Of the GPUs that a rank may see: its own, where the ranks of a machine see all of them or each a part (Slurm's
// --gpus-per-task: often one, number 0). Ranks that come to share one are refused (dist::Job::claim_gpu).
[[nodiscard]] int gpu_number(int local_rank, int visible);

// Why no GPU can be used, with the way out; empty when one can.
[[nodiscard]] std::string why_no_gpu();

// Bytes that can be taken: of main memory without swapping, or of a GPU as it stands.
[[nodiscard]] int64_t free_memory(const at::Device& device);

// "NVIDIA H200", or "CPU, 2 threads, avx512 kernels".
[[nodiscard]] std::string describe_device(const at::Device& device);

}  // namespace longlora::model

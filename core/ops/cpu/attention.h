// The attention kernels of this instruction set, for the table.
#pragma once
#include "core/ops/cpu/isa.h"
#include "core/ops/cpu/kernels.h"

namespace longlora::LONGLORA_CPU_NAMESPACE {

void attention_forward(cpu::Element element, const cpu::Attention& a, const cpu::AttentionTask& task, void* scratch);
void attention_backward(cpu::Element element, const cpu::AttentionBackward& a, const cpu::AttentionTask& task,
                        void* scratch);
int64_t attention_forward_scratch(cpu::Element element, int64_t head_dim);
int64_t attention_backward_scratch(cpu::Element element, int64_t head_dim, int64_t longest_segment);

}  // namespace longlora::LONGLORA_CPU_NAMESPACE

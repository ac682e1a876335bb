// The screen at the start of a run: what will be trained, on what, and what it will take.
#pragma once
#include "core/train/setup.h"

namespace longlora::train {

void print_summary(const Setup& setup, int64_t resumed_step, const dist::Launch& launch);

}  // namespace longlora::train

// The machine itself: program and libraries, processors, memory, disk.
#pragma once
#include <filesystem>

#include "core/doctor/findings.h"

namespace longlora::doctor {

// What this program was built with, and the processor: cores, instruction set, measured rates. A few seconds.
[[nodiscard]] Section examine_processor();
// Memory that this process may take, and room and measured speed of writing in `folder` (256 MiB, removed again).
[[nodiscard]] Section examine_storage(const std::filesystem::path& folder);

}  // namespace longlora::doctor

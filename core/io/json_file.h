// A JSON file of a model or adapter folder, read whole.
#pragma once
#include <nlohmann/json.hpp>

#include "core/base/file.h"

namespace longlora::io {

// Exit 3 naming the file: not there, no JSON (with line and column), nested deeper than any such file is (a hundred levels;
// copying and printing what is nested without end would overrun the stack).
[[nodiscard]] nlohmann::ordered_json read_json(const fs::path& file);

}  // namespace longlora::io

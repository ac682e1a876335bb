// File patterns of recipes and command lines: "pg19/*.txt", "corpus/**/part-?.jsonl.zst".
#pragma once
#include <span>
#include <string>
#include <vector>

#include "core/base/file.h"

namespace longlora::data {

// The files that `patterns` name, in the order of the patterns, those of one pattern sorted by path. `*` and
// `?` match inside one path component (no leading dot), a component `**` matches any number of folders. A
// pattern without these is a path. Exit 3 when a pattern matches no file or a path is missing or a folder;
// exit 2 when a file is named twice.
[[nodiscard]] std::vector<fs::path> expand(std::span<const std::string> patterns);

}  // namespace longlora::data

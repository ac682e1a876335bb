// metrics.jsonl: one JSON object a step, appended and flushed line by line, so that a run can be followed
// while it goes and a killed one keeps what it wrote. A resumed run first cuts the file back to the step it
// resumes from: it ends with the lines that the uninterrupted run would have written.
#pragma once
#include <cstdint>
#include <fstream>

#include <nlohmann/json_fwd.hpp>

#include "core/base/file.h"

namespace longlora::io {

class MetricsLog {
 public:
  // Keeps the lines with "step" <= `resumed_step` and drops the rest, and a last line that was cut short by a
  // crash; 0 starts an empty file. Exit 3 for a damaged line before that, exit 1 where the file cannot be
  // written.
  MetricsLog(fs::path file, int64_t resumed_step);

  // Appends a line; it needs an integer "step". Numbers are written so that they read back to the same value
  // (a value that is not finite becomes null, as JSON has no other word for it). Exit 1 when the disk is
  // full.
  void write(const nlohmann::ordered_json& line);

 private:
  fs::path file_;
  std::ofstream out_;
};

}  // namespace longlora::io

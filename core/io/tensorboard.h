// TensorBoard event files with scalars: TFRecord framing (length and data, each with a masked CRC-32C) around
// Event protocol buffers. Formats: tensorflow/core/lib/io/record_writer.h, tensorflow/core/util/event.proto
// and tensorflow/core/framework/summary.proto.
#pragma once
#include <cstdint>
#include <fstream>
#include <span>
#include <string>
#include <string_view>

#include "core/base/file.h"

namespace longlora::io {

struct Scalar {
  std::string_view tag;  // "train/loss"
  double value;
};

class EventFile {
 public:
  // Starts events.out.tfevents.<time>.<host>.<process> in the folder, which is made where it is missing. With
  // `resumed_step` > 0 TensorBoard is told to forget what earlier files of the folder say of later steps.
  EventFile(const fs::path& folder, int64_t resumed_step);

  // One event with all the scalars of a step, stamped with the time; flushed. Exit 1 when the disk is full.
  void write(int64_t step, std::span<const Scalar> scalars);

 private:
  void append(const std::string& event);
  fs::path file_;
  std::ofstream out_;
};

// CRC-32C (Castagnoli, polynomial 0x1EDC6F41, RFC 3720 appendix B.4).
[[nodiscard]] uint32_t crc32c(std::string_view bytes);

// The bytes of one record, framing included. `wall_time`: seconds since 1970.
[[nodiscard]] std::string version_record(double wall_time);
[[nodiscard]] std::string restart_record(double wall_time,
                                         int64_t first_step);  // steps from here on come again
[[nodiscard]] std::string scalar_record(double wall_time, int64_t step, std::span<const Scalar> scalars);

}  // namespace longlora::io

#include "core/io/metrics.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <nlohmann/json.hpp>

#include "core/base/error.h"

namespace longlora::io {
namespace {

// How many bytes of `text` are lines of steps up to `last_step`.
size_t kept_bytes(const fs::path& file, const std::string& text, int64_t last_step) {
  size_t begin = 0;
  for (int64_t number = 1; begin < text.size(); ++number) {
    const size_t end = text.find('\n', begin);
    if (end == text.npos) break;  // written in part
    const auto line = nlohmann::json::parse(text.begin() + static_cast<ptrdiff_t>(begin),
                                            text.begin() + static_cast<ptrdiff_t>(end), nullptr, false);
    if (!line.is_object() || !line.contains("step") || !line["step"].is_number_integer()) {
      input_error("{}:{}: damaged line; delete it or the file to resume", file.string(), number);
    }
    if (line["step"].get<int64_t>() > last_step) break;
    begin = end + 1;
  }
  return std::min(begin, text.size());
}

}  // namespace

MetricsLog::MetricsLog(fs::path file, int64_t resumed_step) : file_(std::move(file)) {
  if (fs::exists(file_)) {
    const size_t keep = resumed_step > 0 ? kept_bytes(file_, read_file(file_), resumed_step) : 0;
    std::error_code error;
    fs::resize_file(file_, keep, error);
    if (error) fail("{}: cannot be written: {}", file_.string(), error.message());
  }
  out_.open(file_, std::ios::app | std::ios::binary);
  if (!out_) fail("{}: cannot be written: {}", file_.string(), std::strerror(errno));
}

void MetricsLog::write(const nlohmann::ordered_json& line) {
  out_ << line.dump() << '\n' << std::flush;
  if (!out_) fail("{}: cannot be written: {}", file_.string(), std::strerror(errno));
}

}  // namespace longlora::io

#include "core/base/log.h"

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

namespace longlora::log {
namespace {

spdlog::logger& logger() {
  static const std::shared_ptr<spdlog::logger> instance = [] {
    auto made = std::make_shared<spdlog::logger>("longlora", std::make_shared<spdlog::sinks::stderr_color_sink_mt>());
    made->set_pattern("%^%v%$");
    return made;
  }();
  return *instance;
}

std::string& prefix() {
  static std::string text;
  return text;
}

}  // namespace

void set_rank(int rank) {
  prefix() = rank > 0 ? fmt::format("[rank {}] ", rank) : "";
}

const std::string& rank_prefix() {
  return prefix();
}

void write_info(const std::string& line) {
  if (!prefix().empty()) return;
  logger().log(spdlog::level::info, line);
}
void write_warn(const std::string& line) {
  logger().log(spdlog::level::warn, prefix() + "warning: " + line);
}

}  // namespace longlora::log

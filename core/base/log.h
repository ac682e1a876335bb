// Log lines for people, on standard error. Results never go through here: they belong on standard output.
#pragma once
#include <fmt/format.h>

#include <string>

namespace longlora::log {

// Several processes of one job: only rank 0 informs, the others' warnings and errors begin with "[rank N] ".
void set_rank(int rank);
[[nodiscard]] const std::string& rank_prefix();  // "" for rank 0

void write_info(const std::string& line);
void write_warn(const std::string& line);

template <class... Args>
void info(fmt::format_string<Args...> format, Args&&... args) {
  write_info(fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void warn(fmt::format_string<Args...> format, Args&&... args) {
  write_warn(fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace longlora::log

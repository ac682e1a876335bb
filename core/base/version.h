// The program's name and version, as `longlora --version` prints it and files record it.
#pragma once
#include <string>

namespace longlora {

[[nodiscard]] inline std::string version_line() {
  return "longlora " LONGLORA_VERSION;
}

}  // namespace longlora

// Fingerprints of files and settings: XXH3, 128 bits, as 32 hexadecimal digits. Guards against mix-ups and
// damage, not against an attacker.
#pragma once
#include <string>
#include <string_view>

namespace longlora {

[[nodiscard]] std::string fingerprint(std::string_view bytes);

}  // namespace longlora

// What `longlora doctor` has to say: lines under headings, each with how bad it is and, where something is wrong, the way
// out.
#pragma once
#include <nlohmann/json.hpp>

#include <string>
#include <vector>

namespace longlora::doctor {

enum class Level { fine, notice, wrong };  // notice: works, but slower or smaller than it could

struct Finding {
  Level level;
  std::string name;    // "memory"
  std::string value;   // "61.2 GiB, 58.1 GiB of it free"
  std::string remedy;  // what to do, unless fine
};

// One part of the examination. `figures` are the same for machines.
struct Section {
  std::string title;
  std::vector<Finding> findings;
  nlohmann::ordered_json figures = nlohmann::ordered_json::object();

  void fine(const std::string& name, const std::string& value) { findings.push_back({Level::fine, name, value, {}}); }
  void notice(const std::string& name, const std::string& value, const std::string& remedy) {
    findings.push_back({Level::notice, name, value, remedy});
  }
  void wrong(const std::string& name, const std::string& value, const std::string& remedy) {
    findings.push_back({Level::wrong, name, value, remedy});
  }
};

// "  memory    61.2 GiB ..." lines under the title; what is not fine is marked and followed by its remedy.
[[nodiscard]] std::string to_text(const Section& section);
// {"title": ..., "findings": [{"level", "name", "value", "remedy"}], "figures": {...}}
[[nodiscard]] nlohmann::ordered_json to_json(const Section& section);
[[nodiscard]] bool is_wrong(const Section& section);

}  // namespace longlora::doctor

#include "core/doctor/findings.h"

#include <fmt/format.h>

#include <algorithm>

namespace longlora::doctor {
namespace {

const char* name_of(Level level) {
  switch (level) {
    case Level::fine:
      return "fine";
    case Level::notice:
      return "notice";
    case Level::wrong:
      return "wrong";
  }
  return "";
}

}  // namespace

std::string to_text(const Section& section) {
  size_t width = 0;
  for (const Finding& finding : section.findings) width = std::max(width, finding.name.size());
  std::string text = section.title + "\n";
  for (const Finding& finding : section.findings) {
    const char* mark = finding.level == Level::fine ? " " : finding.level == Level::notice ? "~" : "!";
    text += fmt::format("{} {:<{}}  {}\n", mark, finding.name, width, finding.value);
    if (!finding.remedy.empty()) text += fmt::format("  {:<{}}  → {}\n", "", width, finding.remedy);
  }
  return text;
}

nlohmann::ordered_json to_json(const Section& section) {
  nlohmann::ordered_json json = {{"title", section.title}, {"findings", nlohmann::ordered_json::array()}};
  for (const Finding& finding : section.findings) {
    nlohmann::ordered_json entry = {
        {"level", name_of(finding.level)}, {"name", finding.name}, {"value", finding.value}};
    if (!finding.remedy.empty()) entry["remedy"] = finding.remedy;
    json["findings"].push_back(std::move(entry));
  }
  json["figures"] = section.figures;
  return json;
}

bool is_wrong(const Section& section) {
  return std::any_of(section.findings.begin(), section.findings.end(),
                     [](const Finding& finding) { return finding.level == Level::wrong; });
}

}  // namespace longlora::doctor

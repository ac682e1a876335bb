#include "cmd/model_options.h"

#include <charconv>

#include "core/base/file.h"

namespace longlora::cmd {

void declare_model_options(cxxopts::Options& options) {
  options.add_options()("model", "folder of the model", cxxopts::value<std::string>(), "DIR")(
      "adapter", "folder of an adapter to put on it; several where each was trained with those before it on the model",
      cxxopts::value<std::vector<std::string>>(), "DIR")(
      "rope", "other RoPE settings than the model's: linear:4, ntk:8, yarn:16, dynamic:4",
      cxxopts::value<std::string>(), "TYPE:FACTOR")("dtype",
                                                    "what to compute in: auto (what this machine computes fastest), "
                                                    "stored (as the weights are), bfloat16, float16, float32",
                                                    cxxopts::value<std::string>()->default_value("auto"), "T")(
      "device", "auto, cpu or cuda", cxxopts::value<std::string>()->default_value("auto"), "D");
}

adapt::OpenOptions model_options(const cxxopts::ParseResult& arguments) {
  const auto text = [&](const char* name) {
    return arguments.count(name) > 0 ? arguments[name].as<std::string>() : "";
  };
  std::vector<fs::path> adapters;
  if (arguments.count("adapter") > 0)
    for (const std::string& folder : arguments["adapter"].as<std::vector<std::string>>()) adapters.emplace_back(folder);
  const fs::path first = adapters.empty() ? fs::path() : adapters.front();
  if (!adapters.empty()) adapters.erase(adapters.begin());
  return {.model = text("model"),
          .adapter = first,
          .dtype = arguments["dtype"].as<std::string>(),
          .device = arguments["device"].as<std::string>(),
          .rope = text("rope"),
          .stacked = adapters};
}

std::string required(const cxxopts::ParseResult& arguments, const std::string& verb, const std::string& option) {
  if (arguments.count(option) == 0)
    usage_error("{}: --{} is needed; 'longlora help {}' shows the options", verb, option, verb);
  return arguments[option].as<std::string>();
}

std::vector<int64_t> parse_list(const std::string& option, const std::string& text, int64_t least) {
  std::vector<int64_t> numbers;
  const char* at = text.data();
  const char* end = text.data() + text.size();
  while (true) {
    int64_t number = 0;
    const auto [next, fault] = std::from_chars(at, end, number);
    if (fault != std::errc() || number < least || (next != end && *next != ',')) {
      usage_error("--{} {}: give whole numbers of at least {}, separated by commas", option, text, least);
    }
    numbers.push_back(number);
    if (next == end) return numbers;
    at = next + 1;
  }
}

std::optional<std::string> output_file(const cxxopts::ParseResult& arguments, const std::string& option) {
  if (arguments.count(option) == 0) return std::nullopt;
  std::string file = arguments[option].as<std::string>();
  if (file != "-" || option != "json") check_new_file(file, "--" + option);
  return file;
}

void write_result(const std::string& target, const std::string& json) {
  if (target == "-") {
    fmt::print("{}\n", json);
  } else {
    write_file_atomically(target, json + "\n");
  }
}

}  // namespace longlora::cmd

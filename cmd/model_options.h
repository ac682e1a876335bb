// The options that verbs share that open a model, and where their results go.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "cmd/verb.h"
#include "core/adapt/open_model.h"

namespace longlora::cmd {

void declare_model_options(cxxopts::Options& options);
[[nodiscard]] adapt::OpenOptions model_options(const cxxopts::ParseResult& arguments);

// The value of an option that must be given; exit 2 naming verb and option otherwise.
[[nodiscard]] std::string required(const cxxopts::ParseResult& arguments, const std::string& verb,
                                   const std::string& option);

// "64,128,256" -> numbers of at least `least`; exit 2 otherwise.
[[nodiscard]] std::vector<int64_t> parse_list(const std::string& option, const std::string& text, int64_t least);

// The file that an option names for output; exit 2 when it is there already, 1 when it cannot be made. Empty: not given. For
// --json, "-" is standard output. Asked for before the work, so that no result is lost.
[[nodiscard]] std::optional<std::string> output_file(const cxxopts::ParseResult& arguments, const std::string& option);

// Writes machine-readable results to a file, or to standard output for "-".
void write_result(const std::string& target, const std::string& json);

}  // namespace longlora::cmd

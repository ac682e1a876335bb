// What a verb is: its name, a line of help, its options and what it does. One table (cmd/main.cpp) parses,
// dispatches and prints help.
#pragma once
// cxxopts splits values of list options at commas by default, which breaks `a.b=[1,2]` overrides.
#define CXXOPTS_VECTOR_DELIMITER '\0'
#include <cxxopts.hpp>
#include <functional>
#include <string>
#include <vector>

#include "core/base/error.h"

#if CXXOPTS__VERSION_MAJOR == 3 && CXXOPTS__VERSION_MINOR == 0  // Ubuntu 22.04: the same by other names
namespace cxxopts::exceptions {
using exception = OptionException;
using no_such_option = option_not_exists_exception;
}  // namespace cxxopts::exceptions
#endif

namespace longlora::cmd {

struct Verb {
  std::string name;
  std::string summary;    // one line for the list of verbs
  std::string arguments;  // what follows the verb in the usage line: "RECIPE [key=value ...]"
  std::string details;    // shown by `longlora help VERB` under the options: examples, file formats
  std::function<void(cxxopts::Options&)> declare;
  std::function<Exit(const cxxopts::ParseResult&)> run;
};

// One function a verb, each in the file of its name.
Verb train_verb();
Verb sft_verb();
Verb eval_ppl_verb();
Verb eval_passkey_verb();
Verb eval_needle_verb();
Verb eval_retrieval_verb();
Verb generate_verb();
Verb merge_verb();
Verb extract_lora_verb();
Verb prepare_verb();
Verb recipe_verb();
Verb report_verb();
Verb doctor_verb();
Verb plan_verb();

}  // namespace longlora::cmd

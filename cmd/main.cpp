// The program's entry: finds the verb, parses its options, runs it and turns errors into exit codes.
#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <exception>
#include <new>
#include <type_traits>

#include "cmd/verb.h"
#include "core/base/isa.h"
#include "core/base/log.h"
#include "core/base/memory.h"
#include "core/base/nearest.h"
#include "core/base/signal.h"
#include "core/base/version.h"

namespace longlora::cmd {
namespace {

// In the order in which `longlora help` shows them, one a line.
// clang-format off
std::vector<Verb> verbs() {
  return {
      train_verb(),
      sft_verb(),
      eval_ppl_verb(),
      eval_passkey_verb(),
      eval_needle_verb(),
      eval_retrieval_verb(),
      generate_verb(),
      merge_verb(),
      extract_lora_verb(),
      prepare_verb(),
      plan_verb(),
      recipe_verb(),
      report_verb(),
      doctor_verb(),
  };
}
// clang-format on

cxxopts::Options options_of(const Verb& verb) {
  cxxopts::Options options("longlora " + verb.name, verb.summary);
  options.custom_help(verb.arguments + " [options]");
  options.positional_help("");
  options.set_width(110);
  verb.declare(options);
  options.add_options()("isa", "use no more of the processor's instructions than: baseline, avx2, avx512 or amx",
                        cxxopts::value<std::string>(), "SET")("h,help", "show this help");
  return options;
}

void print_overview(const std::vector<Verb>& table) {
  fmt::print(
      "longlora: gives a Llama-family model a long context, and shows that it works.\n\n"
      "usage: longlora VERB [arguments]\n\nverbs:\n");
  for (const Verb& verb : table) fmt::print("  {:<14} {}\n", verb.name, verb.summary);
  fmt::print(
      "\n'longlora help VERB' shows the options of a verb; 'longlora --version' the version.\n"
      "'--isa baseline|avx2|avx512|amx' makes any verb compute as on a processor that has no more.\n"
      "exit codes: 0 done, 1 failed while running, 2 wrong usage or recipe, 3 an input file is missing or damaged,\n"
      "            75 saved and stopped on a signal; the same command (train and sft: with --resume) goes on,\n"
      "            130 ended by a second Ctrl-C without saving\n");
}

void print_help(const Verb& verb) {
  fmt::print("{}", options_of(verb).help());
  if (!verb.details.empty()) fmt::print("\n{}\n", verb.details);
}

const Verb& find(const std::vector<Verb>& table, const std::string& name) {
  std::vector<std::string> names;
  for (const Verb& verb : table) {
    if (verb.name == name) return verb;
    names.push_back(verb.name);
  }
  usage_error("unknown verb '{}'{} 'longlora help' lists the verbs", name,
              did_you_mean(name, names).empty() ? ";" : did_you_mean(name, names));
}

// An option's long names: a list, one name in cxxopts 3.0 (Ubuntu 22.04).
template <typename Names>
void append_names(std::vector<std::string>& to, const Names& names) {
  if constexpr (std::is_same_v<Names, std::string>)
    to.push_back(names);
  else
    to.insert(to.end(), names.begin(), names.end());
}

// What stands between ‘ and ’ in a message of cxxopts.
std::string quoted(const std::string& message) {
  const auto begin = message.find("\u2018"), end = message.rfind("\u2019");
  if (begin == std::string::npos || end == std::string::npos) return message;
  return message.substr(begin + 3, end - begin - 3);
}

// cxxopts reports an unknown option by exception; the message gets the nearest known one.
cxxopts::ParseResult parse(const Verb& verb, int argc, char** argv) {
  cxxopts::Options options = options_of(verb);
  try {
    return options.parse(argc, argv);
  } catch (const cxxopts::exceptions::no_such_option& error) {
    std::vector<std::string> known;
    for (const auto& group : options.groups()) {
      for (const auto& option : options.group_help(group).options) append_names(known, option.l);
    }
    const std::string typed = quoted(error.what());  // Option ‘name’ does not exist
    usage_error("{}: unknown option '--{}'{} 'longlora help {}' lists the options", verb.name, typed,
                did_you_mean(typed, known).empty() ? ";" : did_you_mean(typed, known), verb.name);
  } catch (const cxxopts::exceptions::incorrect_argument_type& error) {
    const std::string value = quoted(error.what());  // Argument ‘value’ failed to parse
    for (int i = 1; i < argc; ++i) {
      const std::string word = argv[i];
      if (word == value) usage_error("{}: {} '{}': is not a number that it takes", verb.name, argv[i - 1], value);
      if (word.ends_with("=" + value))
        usage_error("{}: {} '{}': is not a number that it takes", verb.name, word.substr(0, word.find('=')), value);
    }
    usage_error("{}: {}", verb.name, error.what());
  } catch (const cxxopts::exceptions::exception& error) {
    usage_error("{}: {}", verb.name, error.what());
  }
}

Exit dispatch(int argc, char** argv) {
  take_isa_option(argc, argv);
  const std::vector<Verb> table = verbs();
  const std::string first = argc > 1 ? argv[1] : "help";
  if (first == "--version" || first == "-V") {
    fmt::print("{}\n", version_line());
    return Exit::done;
  }
  if (first == "help" || first == "--help" || first == "-h") {
    argc > 2 ? print_help(find(table, argv[2])) : print_overview(table);
    return Exit::done;
  }
  const Verb& verb = find(table, first);
  const cxxopts::ParseResult arguments = parse(verb, argc - 1, argv + 1);
  if (arguments.count("help") > 0) {
    print_help(verb);
    return Exit::done;
  }
  if (arguments.count("isa") > 0) limit_isa(arguments["isa"].as<std::string>());
  return verb.run(arguments);
}

// A closed descriptor 0, 1 or 2 would be given to the next file that is opened, and messages written into that.
void keep_standard_streams() {
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO})
    if (::fcntl(fd, F_GETFD) < 0) (void)::open("/dev/null", O_RDWR);
}

int run(int argc, char** argv) {
  const Exit done = dispatch(argc, argv);
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) fail("standard output: not everything could be written");
  return static_cast<int>(done);
}

// Standard error may be a full disk too, at which fmt::print would throw.
void say(const std::string& message, const char* kind = "error: ") {
  (void)std::fputs((log::rank_prefix() + kind + message + "\n").c_str(), stderr);
}

// That all stopped rank 0 says.
void say(const Error& error) {
  if (error.code() != Exit::interrupted) return say(error.what(), "error: ");
  if (log::rank_prefix().empty()) say(error.what(), "");
}

}  // namespace
}  // namespace longlora::cmd

int main(int argc, char** argv) {
  using longlora::Exit, longlora::cmd::say;
  longlora::cmd::keep_standard_streams();
  longlora::install_signal_handlers();
  longlora::keep_freed_memory();
  const c10::InferenceMode no_autograd;  // the backward passes are written out
  try {
    return longlora::cmd::run(argc, argv);
  } catch (const longlora::Error& error) {
    say(error);
    return static_cast<int>(error.code());
  } catch (const std::bad_alloc&) {
    say("out of memory");
  } catch (const c10::Error& error) {
    say(error.what_without_backtrace());
  } catch (const std::exception& error) {
    say(error.what());
  }
  return static_cast<int>(Exit::failed);
}

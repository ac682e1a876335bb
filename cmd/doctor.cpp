// `longlora doctor`: what this machine has, measured; what is wrong, and how to mend it.
#include <fmt/format.h>

#include "cmd/model_options.h"
#include "cmd/rank_options.h"
#include "cmd/verb.h"
#include "core/base/file.h"
#include "core/base/signal.h"
#include "core/doctor/gpu.h"
#include "core/doctor/kernels.h"
#include "core/doctor/links.h"
#include "core/doctor/machine.h"
#include "core/model/device.h"

namespace longlora::cmd {
namespace {

void declare(cxxopts::Options& options) {
  options.add_options()("kernels", "also time the attention backends, and say which one \"auto\" takes")(
      "distributed", "also measure what the ranks can send one another; with --nproc N, torchrun, srun or mpirun")(
      "device", "for --kernels and --distributed: auto, cpu or cuda",
      cxxopts::value<std::string>()->default_value("auto"), "NAME")(
      "dir", "the folder whose disk is measured (default: this one)", cxxopts::value<std::string>()->default_value("."),
      "DIR")("json", "write everything as JSON; - for standard output", cxxopts::value<std::string>(), "FILE|-");
  declare_rank_options(options);
}

Exit examine(const cxxopts::ParseResult& arguments, dist::Job& job) {
  const auto json = job.first() ? output_file(arguments, "json") : std::nullopt;
  // A GPU that cannot be used is something to report: it ends the verb only where it was asked for or is needed.
  const bool opens = arguments.count("device") + arguments.count("kernels") > 0 || !job.launch().alone();
  const at::Device device =
      opens ? model::open_device(arguments["device"].as<std::string>(), job.launch().local_rank) : at::kCPU;
  const std::string folder = arguments["dir"].as<std::string>();
  if (!fs::is_directory(folder)) usage_error("doctor: --dir {}: no such folder", folder);
  std::vector<doctor::Section> sections;
  const auto show = [&](doctor::Section section) {
    leave_if_stopped();
    if (!json || json != "-") fmt::print("{}{}", sections.empty() ? "" : "\n", doctor::to_text(section));
    std::fflush(stdout);
    sections.push_back(std::move(section));
  };
  if (job.first()) {  // the others' measurements would disturb it
    show(doctor::examine_processor());
    show(doctor::examine_storage(folder));
    show(doctor::examine_gpus());
    if (arguments.count("kernels") > 0) show(doctor::examine_kernels(device));
  }
  if (!job.launch().alone()) {
    job.claim_gpu(device);
    job.open_group(1, device);
    doctor::Section links = doctor::examine_links(job, device);
    if (job.first()) show(std::move(links));
    job.group().barrier();
  }
  if (!job.first()) return Exit::done;
  const bool wrong = std::any_of(sections.begin(), sections.end(), doctor::is_wrong);
  if (json) {
    nlohmann::ordered_json all = nlohmann::ordered_json::array();
    for (const doctor::Section& section : sections) all.push_back(doctor::to_json(section));
    write_result(*json, nlohmann::ordered_json({{"sections", all}}).dump(2));
  }
  return wrong ? Exit::failed : Exit::done;
}

Exit run(const cxxopts::ParseResult& arguments) {
  if (!arguments.unmatched().empty())
    usage_error("doctor: takes no arguments, '{}' was given", arguments.unmatched().front());
  return run_ranks(arguments, [&](dist::Job& job) {
    if (arguments.count("distributed") > 0 && job.launch().alone())
      usage_error("doctor --distributed: there is one rank; give --nproc N, or start it by torchrun, srun or mpirun");
    return examine(arguments, job);
  });
}

}  // namespace

Verb doctor_verb() {
  return {"doctor",
          "examine this machine: what it has, how fast it is, what is wrong and how to mend it",
          "",
          "  longlora doctor                            processor, memory, disk, GPUs\n"
          "  longlora doctor --kernels                  and the attention backends side by side\n"
          "  longlora doctor --distributed --nproc 4    and the links between ranks\n\n"
          "Lines that begin with ! are wrong (exit code 1), with ~ work but could be better; the remedy stands below "
          "them.",
          declare,
          run};
}

}  // namespace longlora::cmd

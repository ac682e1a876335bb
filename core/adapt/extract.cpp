#include "core/adapt/extract.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <set>

#include "core/adapt/adapted_config.h"
#include "core/adapt/extract_plan.h"
#include "core/adapt/extract_work.h"
#include "core/adapt/merge.h"
#include "core/base/error.h"
#include "core/base/random.h"
#include "core/base/signal.h"
#include "core/base/version.h"
#include "core/io/context_record.h"
#include "core/io/names.h"
#include "core/model/random_tensor.h"
#include "core/model/tensors.h"
#include "core/ops/product.h"

namespace longlora::adapt {
namespace {

using nlohmann::ordered_json;

constexpr int64_t kBlock = int64_t{1} << 22;  // elements of a matrix looked at together

struct Factors {
  at::Tensor a, b;  // [r, in], [out, r], in the type in which they are written
};

// tuned - base, float32, in `buffer`. By blocks of rows, as operands of another type are converted whole.
at::Tensor difference(const ExtractPlan::Matrix& matrix, const at::Tensor& buffer) {
  const at::Tensor base = model::as_tensor(matrix.base), tuned = model::as_tensor(matrix.tuned);
  const at::Tensor d = buffer.narrow(0, 0, tuned.numel()).view(tuned.sizes());
  const int64_t step = std::max<int64_t>(1, kBlock / d.size(1));
  for (int64_t first = 0; first < d.size(0); first += step) {
    const int64_t rows = std::min(step, d.size(0) - first);
    d.narrow(0, first, rows).copy_(tuned.narrow(0, first, rows)).sub_(base.narrow(0, first, rows).to(at::kFloat));
  }
  return d;
}

// Squared norm of d - b a.
double squared_residual(const at::Tensor& d, const Factors& f) {
  const at::Tensor a = f.a.to(at::kFloat), b = f.b.to(at::kFloat);
  const int64_t step = std::max<int64_t>(1, kBlock / d.size(1));
  double sum = 0;
  for (int64_t first = 0; first < d.size(0); first += step) {
    const int64_t rows = std::min(step, d.size(0) - first);
    const at::Tensor left = d.narrow(0, first, rows).clone();
    ops::product_add(left, b.narrow(0, first, rows), a, ops::ProductBackend::native, -1);
    sum += squared_norm(left);
  }
  return sum;
}

ExtractedMatrix factorize(const ExtractPlan::Matrix& matrix, const ExtractOptions& options, const ExtractWork& work,
                          const at::Tensor& buffer, const std::function<void()>& between) {
  const at::Tensor d = difference(matrix, buffer);
  const int64_t out = d.size(0), in = d.size(1);
  ExtractedMatrix result{.module = matrix.module, .shape = {out, in}};
  result.norm = std::sqrt(squared_norm(d));
  const at::ScalarType dtype = model::scalar_type(options.dtype);
  Factors f{at::empty({0, in}, dtype), at::empty({out, 0}, dtype)};
  if (!std::isfinite(result.norm)) {
    input_error("{}: the difference of '{}' holds values that are no finite numbers", options.tuned.string(),
                matrix.module);
  }
  if (result.norm > 0) {
    SvdGoal goal = options.goal;
    if (goal.max_rank == 0) goal.max_rank = std::min(out, in);
    const TruncatedSvd svd =
        truncated_svd(d, goal, derive_seed(options.seed, {model::name_hash(matrix.module)}), between);
    const at::Tensor root = svd.s.sqrt().to(at::kFloat);
    f = {(svd.v * root).t().contiguous().to(dtype), (svd.u * root).to(dtype)};
    result.rank = svd.s.size(0);
    result.exact = svd.exact;
    result.residual = std::sqrt(squared_residual(d, f));
    if (!std::isfinite(result.residual))
      fail("'{}': the factors do not fit {}; choose another --dtype", matrix.module, io::torch_name_of(options.dtype));
  }
  work.save(result, f.a, f.b, dtype);
  return result;
}

// Size and time of the weight files: a folder put in place of another is another, however much of it is the same.
ordered_json files_of(const fs::path& folder) {
  ordered_json files = ordered_json::object();
  std::vector<fs::path> all(fs::directory_iterator(folder), {});
  std::sort(all.begin(), all.end());
  for (const fs::path& file : all) {
    if (file.extension() == ".safetensors")
      files[file.filename().string()] = {fs::file_size(file), fs::last_write_time(file).time_since_epoch().count()};
  }
  return files;
}

ordered_json settings_of(const ExtractOptions& options, const io::TensorStore& base, const io::TensorStore& tuned) {
  return {{"program", version_line()},
          {"base", io::model_fingerprint(base)},
          {"tuned", io::model_fingerprint(tuned)},
          {"base_files", files_of(options.base)},
          {"tuned_files", files_of(options.tuned)},
          {"max_rank", options.goal.max_rank},
          {"loss", options.goal.loss},
          {"dtype", io::torch_name_of(options.dtype)},
          {"seed", options.seed}};
}

// A pair as it is written: of rank `rank`, filled up with zeros. Read from the work folder when its turn comes.
void add_pair(std::vector<io::TensorSource>& sources, const ExtractPlan::Matrix& matrix, const ExtractedMatrix& from,
              int64_t rank, io::DType dtype, const ExtractWork& work) {
  const at::ScalarType type = model::scalar_type(dtype);
  const std::string module = matrix.module;
  const auto put = [&work, module, type, used = from.rank](const char* which, std::vector<int64_t> shape, int64_t dim,
                                                           bool transposed) {
    return [&work, module, type, used, which, shape, dim, transposed](int64_t first, std::span<std::byte> bytes) {
      model::single_threaded();
      const int64_t rows = static_cast<int64_t>(bytes.size() / c10::elementSize(type)) / shape[1];
      at::Tensor to = at::from_blob(bytes.data(), {rows, shape[1]}, type).zero_();
      const int64_t filled = dim == 0 ? std::clamp<int64_t>(used - first, 0, rows) : rows;
      if (used == 0 || filled == 0) return;
      const io::SafetensorsFile file = work.open(module);
      const at::Tensor stored = model::as_tensor(file.tensors().at(which));
      to.narrow(dim, 0, dim == 0 ? filled : used).copy_((transposed ? stored.t() : stored).narrow(0, first, filled));
    };
  };
  const int64_t out = from.shape[0], in = from.shape[1];
  if (matrix.embedding) {  // the matrix is [vocab, hidden], PEFT's A [r, vocab] and B [hidden, r]
    const std::string name = io::adapter_name(module);
    sources.push_back({name + ".lora_embedding_A", dtype, {rank, out}, put("b", {rank, out}, 0, true)});
    sources.push_back({name + ".lora_embedding_B", dtype, {in, rank}, put("a", {in, rank}, 1, true)});
    return;
  }
  sources.push_back({io::lora_a_name(module), dtype, {rank, in}, put("a", {rank, in}, 0, false)});
  sources.push_back({io::lora_b_name(module), dtype, {out, rank}, put("b", {out, rank}, 1, false)});
}

// PEFT's target_modules: the last part of the name where all modules of that part have LoRA, else whole names.
std::vector<std::string> target_modules(const std::set<std::string>& modules, const io::TensorStore& base) {
  std::set<std::string> not_all;
  for (const std::string& name : base.names()) {
    const std::string module = io::module_of(name);
    if (name.ends_with(".weight") && !modules.contains(module)) not_all.insert(io::last_part(module));
  }
  std::set<std::string> targets;
  for (const std::string& module : modules) {
    const std::string last = io::last_part(module);
    targets.insert(not_all.contains(last) ? module : last);
  }
  return {targets.begin(), targets.end()};
}

void write_context(const ExtractOptions& options, const ExtractPlan& plan, const ExtractReport& report,
                   const ordered_json& settings, const fs::path& folder) {
  // merge() says from these how far its result is from the tuned model.
  const ordered_json origin = {{"extracted_from", options.tuned.string()},
                               {"residual", report.norm > 0 ? report.residual / report.norm : 0},
                               {"left_out", report.left_out},
                               {"settings", settings}};
  const io::ContextRecord record{.version = version_line(),
                                 .context_length = plan.tuned.covered_length(),
                                 .max_positions = plan.tuned.max_positions,
                                 .rope = model::rope_to_json(plan.tuned.rope),
                                 .group_size = 0,
                                 .base_model = options.base.string(),
                                 .base_fingerprint = settings.at("base"),
                                 .recipe = origin};
  io::write_context_record(record, folder);
}

// The finished folder against what it should be.
void check_result(const fs::path& folder, const ExtractPlan& plan, const io::TensorStore& base) {
  const std::vector<io::Adapter> again = [&] {
    std::vector<io::Adapter> list;
    list.emplace_back(folder);
    return list;
  }();
  const AdaptedConfig adapted = adapted_config(plan.base, base, again);
  bool same = adapted.config.rope == plan.tuned.rope && adapted.config.max_positions == plan.tuned.max_positions;
  for (const auto& [module, lora] : again.front().low_rank()) same = same && lora.scale == 1;
  if (!same) fail("{}: read back after writing, the adapter is not what was written", folder.string());
}

void write_adapter(const ExtractOptions& options, const ExtractPlan& plan, const ExtractWork& work,
                   const io::TensorStore& base, const ordered_json& settings, ExtractReport& report) {
  std::vector<io::TensorSource> sources;
  std::set<std::string> modules;
  io::AdapterConfig config;
  config.rank = report.rank;
  config.alpha = static_cast<double>(report.rank);
  const bool none =
      std::all_of(report.matrices.begin(), report.matrices.end(), [](const auto& m) { return m.rank == 0; });
  for (size_t i = 0; i < plan.matrices.size(); ++i) {
    const ExtractedMatrix& m = report.matrices[i];
    const bool filler = none && i == 0;  // PEFT knows no adapter without LoRA
    if (m.rank == 0 && !options.portable && !filler) continue;
    const int64_t rank = options.portable ? report.rank : std::max<int64_t>(m.rank, 1);
    add_pair(sources, plan.matrices[i], m, rank, options.dtype, work);
    modules.insert(m.module);
    if (rank == report.rank) continue;
    // Without "model.", as old versions of PEFT ask for a dot before the pattern.
    const std::string pattern = m.module.starts_with("model.") ? m.module.substr(6) : m.module;
    config.rank_pattern.emplace_back(pattern, rank);
    config.alpha_pattern.emplace_back(pattern, static_cast<double>(rank));
  }
  for (const auto& [name, view] : plan.whole) {
    sources.push_back(
        {io::adapter_name(name), view.dtype, view.shape, [&view = view](int64_t first, std::span<std::byte> out) {
           std::memcpy(out.data(), io::rows_of(view, first, view.count()).bytes.data(), out.size());
         }});
    report.whole.push_back(name);
  }
  for (const io::TensorSource& source : sources) {
    report.bytes += io::byte_count(source);
    report.parameters += io::byte_count(source) / io::size_of(source.dtype);
  }
  config.targets = target_modules(modules, base);
  config.modules_to_save = plan.modules_to_save;
  config.base_model = options.base.string();

  AtomicFolder out(options.out, options.overwrite);
  io::write_safetensors(out.path() / "adapter_model.safetensors", std::move(sources));
  io::write_adapter_config(config, out.path() / "adapter_config.json");
  write_context(options, plan, report, settings, out.path());
  check_result(out.path(), plan, base);
  out.commit();
}

// Everything after the inputs were found to fit together.
ExtractReport run(const ExtractOptions& options, const ExtractPlan& plan, const io::TensorStore& base,
                  const ordered_json& settings, const ExtractWork& work,
                  const std::function<void(int64_t, int64_t, const std::string&)>& progress) {
  ExtractReport report;
  report.left_out = plan.left_out;
  report.notes = plan.notes;
  report.context = fmt::format("{} tokens, RoPE {}, theta {:g}, from {}", plan.tuned.covered_length(),
                               model::name_of(plan.tuned.rope.type), plan.tuned.rope.theta, options.tuned.string());
  int64_t total = 0, done = 0, largest = 0;
  for (const auto& m : plan.matrices) {
    total += m.base.count();
    largest = std::max(largest, m.base.count());
  }
  const at::Tensor buffer = at::empty({largest}, at::kFloat);  // one for all: the C library keeps what is freed
  const auto between = [&] {
    if (stop_requested())
      throw Stopped(
          fmt::format("stopped after {} of {} matrices; the same command goes on from there (they are kept in {})",
                      report.matrices.size(), plan.matrices.size(), work.folder().string()));
  };
  for (const auto& matrix : plan.matrices) {
    between();
    progress(done, total, matrix.module);
    if (const auto finished = work.find(matrix.module)) {
      report.matrices.push_back(*finished);
      ++report.resumed;
    } else {
      report.matrices.push_back(factorize(matrix, options, work, buffer, between));
    }
    const ExtractedMatrix& made = report.matrices.back();
    report.rank = std::max(report.rank, made.rank);
    report.norm = std::hypot(report.norm, made.norm);
    report.residual = std::hypot(report.residual, made.residual);
    done += matrix.base.count();
  }
  progress(total, total, "writing");
  const bool context = plan.base.rope != plan.tuned.rope || plan.base.max_positions != plan.tuned.max_positions;
  if (report.rank == 0 && plan.whole.empty() && !context) {
    work.remove();
    input_error("{}: holds the same weights as {}: there is nothing to extract", options.tuned.string(),
                options.base.string());
  }
  report.rank = std::max<int64_t>(report.rank, 1);
  write_adapter(options, plan, work, base, settings, report);
  return report;
}

}  // namespace

ExtractReport extract(const ExtractOptions& options,
                      const std::function<void(int64_t, int64_t, const std::string&)>& progress) {
  check_folders(
      {.model = options.base, .adapters = {{options.tuned}}, .out = options.out, .overwrite = options.overwrite});
  if (fs::exists(options.out) && !options.overwrite) {
    usage_error("{}: exists already; choose another folder or pass --overwrite", options.out.string());
  }
  const io::TensorStore base(options.base), tuned(options.tuned);
  const ExtractPlan plan = plan_extract(options, base, tuned);
  const ordered_json settings = settings_of(options, base, tuned);
  const ExtractWork work(options.out, settings);
  try {
    ExtractReport report = run(options, plan, base, settings, work, progress);
    work.remove();
    return report;
  } catch (const Error& error) {
    if (work.empty()) {
      work.remove();
      throw;
    }
    if (error.code() != Exit::failed && error.code() != Exit::input) throw;
    throw Error(error.code(), fmt::format("{}; the finished matrices are kept in {}: the same command goes on from "
                                          "there; for another one, or other inputs, remove the folder",
                                          error.what(), work.folder().string()));
  }
}

}  // namespace longlora::adapt

#include "core/adapt/extract_work.h"

#include <algorithm>

#include "core/base/error.h"
#include "core/model/tensors.h"

namespace longlora::adapt {
namespace {

using nlohmann::ordered_json;

constexpr const char *kSettings = "extract.json", *kLock = "lock";

fs::path beside(const fs::path& out) {
  const fs::path clean = out.has_filename() ? out : out.parent_path();
  return clean.parent_path() / fmt::format(".{}.extract", clean.filename().string());
}

void check_same(const ordered_json& before, const ordered_json& now, const fs::path& folder) {
  if (before == now) return;
  std::string what = "settings";
  for (const auto& [key, value] : now.items()) {
    if (before.is_object() && before.contains(key) && before[key] == value) continue;
    what = before.is_object() && before.contains(key)
               ? fmt::format("{} {}, now {}", key, before[key].dump(), value.dump())
               : key;
    break;
  }
  usage_error(
      "{}: holds the beginnings of another extraction to this place ({}); finish that with its own options, or remove "
      "the folder",
      folder.string(), what);
}

}  // namespace

ExtractWork::ExtractWork(const fs::path& out, const ordered_json& settings) : folder_(beside(out)) {
  std::error_code ec;
  fs::create_directories(folder_, ec);
  if (ec) fail("{}: cannot create the folder: {}", folder_.string(), ec.message());
  lock_.emplace(folder_ / kLock);
  if (!lock_->try_lock()) fail("{}: another run is at work on this output", folder_.string());
  const fs::path record = folder_ / kSettings;
  if (!fs::exists(record)) {
    write_file_atomically(record, settings.dump(2) + "\n");
    return;
  }
  check_same(ordered_json::parse(read_file(record), nullptr, /*allow_exceptions=*/false), settings, folder_);
}

fs::path ExtractWork::file(const std::string& module) const {
  return folder_ / (module + ".safetensors");
}

void ExtractWork::save(const ExtractedMatrix& m, const at::Tensor& a, const at::Tensor& b, at::ScalarType dtype) const {
  const ordered_json about = {{"rank", m.rank}, {"norm", m.norm}, {"residual", m.residual}, {"exact", m.exact}};
  io::write_safetensors(file(m.module), {model::source("a", a, dtype), model::source("b", b, dtype)},
                        {{"format", "pt"}, {"matrix", about.dump()}});
}

std::optional<ExtractedMatrix> ExtractWork::find(const std::string& module) const {
  if (!fs::exists(file(module))) return std::nullopt;
  try {
    const io::SafetensorsFile in = open(module);
    const ordered_json about = ordered_json::parse(in.metadata().at("matrix"));
    return ExtractedMatrix{.module = module,
                           .shape = {in.tensors().at("b").shape.at(0), in.tensors().at("a").shape.at(1)},
                           .rank = about.at("rank"),
                           .norm = about.at("norm"),
                           .residual = about.at("residual"),
                           .exact = about.at("exact")};
  } catch (const std::exception&) {
    return std::nullopt;
  }
}

io::SafetensorsFile ExtractWork::open(const std::string& module) const {
  return io::SafetensorsFile(file(module));
}

bool ExtractWork::empty() const {
  std::error_code gone;  // counts as empty
  return std::none_of(fs::directory_iterator(folder_, gone), fs::directory_iterator(),
                      [](const auto& entry) { return entry.path().extension() == ".safetensors"; });
}

void ExtractWork::remove() const {
  std::error_code ignored;
  fs::remove_all(folder_, ignored);
}

}  // namespace longlora::adapt

#include "core/io/token_writer.h"

#include <algorithm>

#include "core/base/error.h"

namespace longlora::io {
namespace {

using Json = nlohmann::json;

std::string dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Json sources_json(const TokenFileInfo& info, bool with_times) {
  Json all = Json::array();
  for (const TokenSourceFile& source : info.sources) {
    Json one = {{"path", source.path}, {"bytes", source.bytes}};
    if (with_times) one["modified"] = source.modified;
    all.push_back(std::move(one));
  }
  return all;
}

// What unfinished work must have in common with what is asked for now.
std::string identity(const TokenFileInfo& info) {
  return dump({{"version", 1},
               {"vocab", info.vocab},
               {"tokenizer", info.tokenizer},
               {"bos", info.bos},
               {"sources", sources_json(info, true)}});
}

// The state of unfinished work, null when there is none that can be read: nothing was ever checkpointed then.
Json read_state(const fs::path& path) {
  if (!fs::exists(path)) return {};
  try {
    return Json::parse(read_file(path));
  } catch (const Json::exception& error) {
    input_error("{}: damaged: {}; remove the folder and start afresh", path.string(), error.what());
  }
}

}  // namespace

TokenWriter::TokenWriter(fs::path target, TokenFileInfo info, bool overwrite)
    : target_(std::move(target)),
      folder_(target_.string() + ".partial"),
      info_(std::move(info)),
      type_(token_type_for(info_.vocab)) {
  if (target_.extension() != ".bin") usage_error("{}: a token file's name ends in .bin", target_.string());
  if (fs::exists(target_) && !overwrite) {
    usage_error("{}: exists already; choose another name or pass --overwrite", target_.string());
  }
  // An index without its token file is what a stop in the middle of finish() leaves: only then is it ours to
  // replace.
  if (const fs::path index = token_index_path(target_);
      fs::exists(index) && !overwrite && !fs::exists(folder_ / "state.json")) {
    usage_error("{}: exists already; choose another name or pass --overwrite", index.string());
  }
  std::error_code ec;
  fs::create_directories(folder_, ec);
  if (ec) fail("{}: cannot create the folder: {}", folder_.string(), ec.message());
  lock_ = std::make_unique<FileLock>(folder_ / "lock");
  if (!lock_->try_lock()) fail("{}: another process is at work on this file", target_.string());

  const Json state = read_state(folder_ / "state.json");
  const bool ours = state.is_object() && state.value("making", "") == identity(info_);
  if (state.is_object() && !ours && !overwrite) {
    usage_error(
        "{}: holds unfinished work on other inputs, or the inputs or the tokenizer have changed since; pass "
        "--overwrite to start afresh",
        folder_.string());
  }
  // finish() may also have stopped after its last move, when the tokens are no longer here.
  const bool go_on = ours && fs::exists(folder_ / "tokens");
  if (!go_on) fs::remove(folder_ / "state.json", ec);
  const auto size = [&](const char* name) { return go_on ? state.at(name).get<int64_t>() : 0; };
  tokens_ = std::make_unique<AppendFile>(folder_ / "tokens", size("token_bytes"));
  documents_ = std::make_unique<AppendFile>(folder_ / "documents", size("document_bytes"));
  if (go_on) position_ = state.at("position");
}

int64_t TokenWriter::tokens() const {
  return tokens_->size() / token_bytes(type_);
}
int64_t TokenWriter::documents() const {
  return documents_->size() / static_cast<int64_t>(sizeof(int64_t));
}

void TokenWriter::append(std::span<const int32_t> document) {
  const auto wrong = std::ranges::find_if(document, [&](int32_t id) { return id < 0 || id >= info_.vocab; });
  if (wrong != document.end()) {
    fail("the tokenizer gave the id {}, but says that its vocabulary is {}", *wrong, info_.vocab);
  }
  const int64_t start = tokens();
  documents_->append(std::as_bytes(std::span(&start, 1)));
  if (type_ == TokenType::uint16) {
    narrow_.assign(document.begin(), document.end());
    tokens_->append(std::as_bytes(std::span(narrow_)));
  } else {
    tokens_->append(std::as_bytes(document));
  }
}

void TokenWriter::checkpoint(const Json& position) {
  tokens_->sync();
  documents_->sync();
  write_file_atomically(folder_ / "state.json", dump({{"making", identity(info_)},
                                                      {"token_bytes", tokens_->size()},
                                                      {"document_bytes", documents_->size()},
                                                      {"position", position}}));
}

void TokenWriter::write_index(const fs::path& to) const {
  const Json head = {{"format", "longlora-tokens"},
                     {"version", 1},
                     {"dtype", token_type_name(type_)},
                     {"tokens", tokens()},
                     {"vocab", info_.vocab},
                     {"tokenizer", info_.tokenizer},
                     {"bos", info_.bos},
                     {"sources", sources_json(info_, false)}};
  AppendFile file(to, 0);
  std::string text = dump(head);
  text.back() = ',';
  file.append(text + "\"documents\":[");
  const MappedFile map(documents_->path());  // there may be many millions
  const auto* starts = reinterpret_cast<const int64_t*>(map.bytes().data());
  for (int64_t i = 0; i < documents(); ++i) file.append(fmt::format("{}{}", i > 0 ? "," : "", starts[i]));
  file.append("]}\n");
  file.sync();
}

void TokenWriter::finish(const Json& position) {
  checkpoint(position);
  write_index(folder_ / "index.json");
  std::error_code ec;
  fs::remove(target_, ec);  // never an old token file beside a new index
  if (!ec) fs::rename(folder_ / "index.json", token_index_path(target_), ec);
  if (!ec) fs::rename(folder_ / "tokens", target_, ec);
  if (ec) fail("{}: cannot move the finished file into place: {}", target_.string(), ec.message());
  sync_path(target_.has_parent_path() ? target_.parent_path() : fs::path("."));
  discard();
}

void TokenWriter::discard() {
  std::error_code ignored;
  fs::remove_all(folder_, ignored);
}

}  // namespace longlora::io

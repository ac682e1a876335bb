#include "core/text/tokenizer.h"

#include "core/base/error.h"
#include "core/base/file.h"
#include "core/text/kinds.h"

namespace longlora::text {

namespace {

class HoldAll final : public Tokenizer::Decoding {
 public:
  HoldAll(const Tokenizer& tokenizer, bool skip_special) : tokenizer_(tokenizer), skip_special_(skip_special) {}
  void push(int32_t id, std::string&) override { ids_.push_back(id); }
  void finish(std::string& out) override {
    out += tokenizer_.decode(ids_, skip_special_);
    ids_.clear();
  }

 private:
  const Tokenizer& tokenizer_;
  bool skip_special_;
  std::vector<int32_t> ids_;
};

}  // namespace

std::unique_ptr<Tokenizer::Decoding> Tokenizer::start_decoding(bool skip_special) const {
  return std::make_unique<HoldAll>(*this, skip_special);
}

bool Tokenizer::is_in(const fs::path& folder) {
  return fs::exists(folder / "tokenizer.model") || fs::exists(folder / "tokenizer.json");
}

std::shared_ptr<const Tokenizer> Tokenizer::load(const fs::path& folder) {
  const fs::path model = folder / "tokenizer.model", json = folder / "tokenizer.json";
  if (!fs::is_directory(folder))
    input_error("{}: no such folder (a tokenizer is read from a model's folder)", folder.string());
  const bool has_json = fs::exists(json);
  // Some Llama-3 folders carry a tokenizer.model of another format (base64 lines) beside their
  // tokenizer.json.
  if (fs::exists(model) && !(has_json && is_rank_file(model)))
    return load_sentencepiece(model, read_folder_settings(folder));
  if (has_json) return load_tokenizer_json(json, read_folder_settings(folder));
  input_error("{}: no tokenizer here; a tokenizer.model (SentencePiece) or a tokenizer.json is needed",
              folder.string());
}

}  // namespace longlora::text

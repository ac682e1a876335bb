// Reads a tokenizer.json, the file of the Hugging Face `tokenizers` library (serialization version 1.0), of
// the kinds that Llama, Mistral and GPT-2 like models come with. Every other part is an error that names it.
#include "core/base/file.h"
#include "core/base/hash.h"
#include "core/text/added_vocabulary.h"
#include "core/text/bpe.h"
#include "core/text/json_fields.h"
#include "core/text/kinds.h"

namespace longlora::text {

namespace {

const Json& part(const Json& json, const char* key) {
  static const Json null;
  const auto found = json.find(key);
  return found == json.end() ? null : *found;
}

AddedToken read_added(const Json& json, const std::string& where) {
  allow_keys(json, where, {"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"});
  AddedToken token;
  token.id = required<int32_t>(json, "id", where);
  token.content = required<std::string>(json, "content", where);
  token.special = required<bool>(json, "special", where);
  token.single_word = required<bool>(json, "single_word", where);
  token.lstrip = required<bool>(json, "lstrip", where);
  token.rstrip = required<bool>(json, "rstrip", where);
  token.normalized = optional_or<bool>(json, "normalized", where, !token.special);
  if (token.id < 0) input_error("{}: the id {} of '{}' is negative", where, token.id, token.content);
  return token;
}

// The token that the post-processor puts before a text, if any. What it puts behind is not looked at: whoever
// encodes says where a text ends.
std::optional<std::string> first_token(const Json& json, const std::string& where) {
  if (json.is_null()) return std::nullopt;
  const std::string type = type_of(json, where);
  if (type == "ByteLevel") return std::nullopt;
  if (type == "Sequence") {
    const auto parts = required<std::vector<Json>>(json, "processors", where);
    std::optional<std::string> first;
    for (size_t i = 0; i < parts.size(); ++i)
      if (auto token = first_token(parts[i], fmt::format("{}.processors[{}]", where, i))) first = std::move(token);
    return first;
  }
  if (type != "TemplateProcessing") unsupported_type(type, where);
  const auto single = required<std::vector<Json>>(json, "single", where);
  if (single.empty() || !single[0].is_object() || !single[0].contains("SpecialToken")) return std::nullopt;
  return required<std::string>(single[0]["SpecialToken"], "id", where + ".single[0]");
}

}  // namespace

std::shared_ptr<const Tokenizer> load_tokenizer_json(const fs::path& path, const FolderSettings& settings) {
  const std::string file = path.string();
  const Json json = parse_json(read_file(path), file);
  // Truncation and padding are settings of a call, which the reference resets; they are no part of the ids.
  allow_keys(json, file,
             {"version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer", "post_processor",
              "decoder", "model"});
  if (const auto version = optional_or<std::string>(json, "version", file, "1.0"); version != "1.0")
    input_error("{}: the version '{}' is not supported (1.0 is)", file, version);
  if (!part(json, "model").is_object()) input_error("{}: 'model' is missing", file);

  Normalizer normalizer(part(json, "normalizer"), file + ": normalizer");
  PreTokenizer pretokenizer(part(json, "pre_tokenizer"), file + ": pre_tokenizer");
  BpeModel model(part(json, "model"), file + ": model", pretokenizer.ends_in_bytes());
  Decoder decoder(part(json, "decoder"), file + ": decoder");

  AddedVocabulary added([&](const std::string& token) { return model.id_of(token); },
                        static_cast<int32_t>(model.size()), file);
  if (const Json& tokens = part(json, "added_tokens"); !tokens.is_null()) {
    if (!tokens.is_array()) input_error("{}: 'added_tokens' is no list", file);
    for (size_t i = 0; i < tokens.size(); ++i)
      added.add(read_added(tokens[i], fmt::format("{}: added_tokens[{}]", file, i)));
  }
  added.add(settings);
  int64_t vocab_size = model.highest_id() + 1;
  for (const AddedToken& token : added.tokens()) vocab_size = std::max<int64_t>(vocab_size, token.id + 1);

  const auto first = first_token(part(json, "post_processor"), file + ": post_processor");
  auto bos = special_id(settings.bos ? settings.bos : first, settings.bos_id, added, vocab_size);
  const auto eos = special_id(settings.eos, settings.eos_id, added, vocab_size);
  if (first && added.id_of(*first) != bos)
    input_error("{}: the post_processor puts '{}' before a text, but the BOS token is '{}'", file, *first,
                settings.bos.value_or("another one"));
  const bool adds_bos = bos && settings.add_bos.value_or(first.has_value());
  std::string print = fingerprint(model.description() + added.description() + part(json, "normalizer").dump() +
                                  part(json, "pre_tokenizer").dump());
  return std::make_shared<BpeTokenizer>(BpeParts{std::move(normalizer), std::move(pretokenizer), std::move(model),
                                                 std::move(decoder), added.tokens(), bos, eos, adds_bos,
                                                 std::move(print)});
}

}  // namespace longlora::text

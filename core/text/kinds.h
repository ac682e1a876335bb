// The two kinds of tokenizer that Tokenizer::load chooses from.
#pragma once
#include <filesystem>
#include <memory>

#include "core/text/folder_settings.h"
#include "core/text/tokenizer.h"

namespace longlora::text {

// tokenizer.model of SentencePiece.
[[nodiscard]] std::shared_ptr<const Tokenizer> load_sentencepiece(const std::filesystem::path& file,
                                                                  const FolderSettings& settings);
// Whether the file is a list of base64 tokens and ranks rather than a SentencePiece model.
[[nodiscard]] bool is_rank_file(const std::filesystem::path& file);

// tokenizer.json with a model of type BPE.
[[nodiscard]] std::shared_ptr<const Tokenizer> load_tokenizer_json(const std::filesystem::path& file,
                                                                   const FolderSettings& settings);

}  // namespace longlora::text

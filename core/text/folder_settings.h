// What the small files beside a tokenizer say: which tokens begin and end a text, and which were added. The
// same for both kinds of tokenizer.
#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "core/text/added_tokens.h"

namespace longlora::text {

struct FolderSettings {
  std::optional<std::string> bos, eos;  // by name
  std::optional<int32_t> bos_id,
      eos_id;                   // from generation_config.json or config.json, where there is no name
  std::optional<bool> add_bos;  // only when said explicitly
  bool legacy = true;  // SentencePiece: every part of a text between special tokens begins with the dummy space
  std::vector<AddedToken> added;  // with their ids, ascending
  std::vector<AddedToken> named;  // special tokens named without an id (id -1); most are in the vocabulary already
};

// Missing files are fine. Exit 3 naming the file for one that is damaged or contradicts another.
[[nodiscard]] FolderSettings read_folder_settings(const std::filesystem::path& folder);

}  // namespace longlora::text

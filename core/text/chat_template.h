// Which of the known chat formats a model's own chat template is.
#pragma once
#include <filesystem>
#include <optional>
#include <string_view>

#include "core/text/chat.h"

namespace longlora::text {

// By all the texts that a template writes around the messages, which must be those of a format: llama-2, llama-3 or mistral as
// their models publish them (the others come without a template). Empty for one that writes anything else: a default system
// text, Llama-3.1's date, tools, another space.
[[nodiscard]] std::optional<ChatFormat> recognize_chat_template(std::string_view jinja);

// The format of a tokenizer's folder: `chat_template` in tokenizer_config.json, or chat_template.jinja. Exit 2, listing
// the formats' names after `key`, the option that takes one of them, when there is none or it is not known.
[[nodiscard]] ChatFormat chat_format_of(const std::filesystem::path& folder, std::string_view key);

}  // namespace longlora::text

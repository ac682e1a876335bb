#include "core/eval/conversation.h"

#include <algorithm>

#include "core/base/error.h"

namespace longlora::eval {

Conversation::Conversation(const model::Llama& llama, std::shared_ptr<const text::Tokenizer> tokenizer,
                           std::vector<int32_t> stop, ConversationOptions options)
    : llama_(llama), tokenizer_(std::move(tokenizer)), stop_(std::move(stop)), options_(std::move(options)) {
  stop_.push_back(text::answer_end(*tokenizer_, options_.format));
  reset();
}

void Conversation::reset() {
  messages_.clear();
  cached_.clear();
  cache_ = llama_.make_cache(0);
  if (options_.system) messages_.push_back({text::Role::system, *options_.system});
}

// Leaves in the cache what `ids` begin with and what would be the same if they were computed now, with room for `capacity`.
void Conversation::keep_common(const std::vector<int32_t>& ids, int64_t capacity) {
  const auto end = static_cast<int64_t>(ids.size());
  int64_t keep = std::mismatch(cached_.begin(), cached_.end(), ids.begin(), ids.end()).first - cached_.begin();
  keep = std::min(keep, end - 1);  // the last one gives the logits
  if (keep > 0 && !turned_alike(llama_.config(), first_length_, end)) keep = 0;
  if (keep == 0) first_length_ = end;
  if (capacity > cache_.capacity) {
    model::KvCache larger = llama_.make_cache(std::min(options_.limit, capacity + capacity / 2));
    for (size_t i = 0; i < larger.layers.size(); ++i) {
      larger.layers[i].k.narrow(0, 0, keep).copy_(cache_.layers[i].k.narrow(0, 0, keep));
      larger.layers[i].v.narrow(0, 0, keep).copy_(cache_.layers[i].v.narrow(0, 0, keep));
    }
    cache_ = std::move(larger);
  }
  cache_.length = keep;
  reused_ = keep;
}

Answer Conversation::ask(const std::string& message, const std::function<void(const std::string&)>& show) {
  std::vector<text::ChatMessage> messages = messages_;
  messages.push_back({text::Role::user, message});
  const std::vector<int32_t> ids = text::encode_chat(*tokenizer_, options_.format, messages).ids;
  const auto length = static_cast<int64_t>(ids.size()), left = options_.limit - length;
  if (left < 1) {
    usage_error(
        "with this message the conversation has {} tokens, the model covers {} and an answer needs room too; begin "
        "anew, "
        "or ask for less",
        length, options_.limit);
  }
  AnswerOptions options = options_.answer;
  options.generate.max_new_tokens = std::min(options.generate.max_new_tokens, left);
  keep_common(ids, length + options.generate.max_new_tokens);
  prompt_tokens_ = length;
  Answer given = answer(llama_, tokenizer_, ids, cache_, stop_, options, show);
  cached_ = ids;
  cached_.insert(cached_.end(), given.tokens.begin(), given.tokens.end());
  cached_.resize(static_cast<size_t>(cache_.length));
  if (given.finish == Finish::interrupted && given.tokens.empty()) return given;  // it has said nothing
  full_ = given.finish == Finish::length && options.generate.max_new_tokens == left;
  messages_ = std::move(messages);
  messages_.push_back({text::Role::assistant, given.text});
  return given;
}

}  // namespace longlora::eval

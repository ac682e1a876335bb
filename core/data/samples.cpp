#include "core/data/samples.h"

#include <algorithm>

#include "core/base/error.h"
#include "core/base/parallel.h"
#include "core/base/progress.h"
#include "core/base/signal.h"
#include "core/data/glob.h"

namespace longlora::data {
namespace {

using text::ChatFormat;
using text::ChatMessage;
using text::ChatTokens;
using text::Role;

constexpr size_t kBatch = 256;  // entries read before they are encoded side by side

constexpr const char* kAlpacaTaskWithInput =
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.";
// Meta's default, as the Llama-2 chat models were released with it.
constexpr const char* kLlama2System =
    "You are a helpful, respectful and honest assistant. Always answer as helpfully as possible, while being safe.  "
    "Your answers should not include any harmful, unethical, racist, sexist, toxic, dangerous, or illegal content. "
    "Please ensure that your responses are socially unbiased and positive in nature.\n\n"
    "If a question does not make any sense, or is not factually coherent, explain why instead of answering something "
    "not correct. If you don't know the answer to a question, please don't share false information.";

using Ids = std::vector<int32_t>;

int64_t common_prefix(const Ids& a, const Ids& b) {
  return std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin();
}
int64_t common_suffix(const Ids& a, const Ids& b) {
  return std::mismatch(a.rbegin(), a.rend(), b.rbegin(), b.rend()).first - a.rbegin();
}

bool learns(const ChatTokens& tokens) {
  return std::find(tokens.learn.begin(), tokens.learn.end(), uint8_t{1}) != tokens.learn.end();
}

// An entry on its way to a sample.
struct Work {
  Instruction instruction;
  Sample sample;
};

void encode(const text::Tokenizer& tokenizer, const SampleOptions& options, Work& work) {
  work.sample.where = work.instruction.where;
  const std::vector<ChatMessage> messages = messages_for(options.format, work.instruction);
  ChatTokens& tokens = work.sample.tokens;
  try {
    tokens = encode_chat(tokenizer, options.format, messages);
  } catch (const Error& error) {
    input_error("{}: {}", work.sample.where, error.what());
  }
  work.instruction = {};
  if (!learns(tokens) && !options.drop_empty) {
    input_error(
        "{}: nothing in it is learned, as the assistant says nothing; mend it, or leave such entries out with "
        "sft.empty=drop",
        work.sample.where);
  }
  const auto size = static_cast<int64_t>(tokens.ids.size());
  if (size <= options.length || options.too_long == TooLong::drop) return;
  if (options.too_long == TooLong::error) {
    input_error(
        "{}: has {} tokens, context.length is {}; give a longer one, or say sft.too_long=truncate-material or drop",
        work.sample.where, size, options.length);
  }
  const auto cut = cut_material(tokenizer, options.format, messages, options.length, tokens);
  if (!cut) {
    input_error(
        "{}: has {} tokens, context.length is {}, and its material is too short to be cut to that; give a longer "
        "context.length, or leave such entries out with sft.too_long=drop",
        work.sample.where, size, options.length);
  }
  work.sample.cut = *cut;
}

}  // namespace

std::string SampleReport::line() const {
  return fmt::format(
      "{} samples, {} tokens, {} of them answers; {} truncated, {} dropped, {} without an answer left out", samples,
      format_count(static_cast<double>(tokens)), format_count(static_cast<double>(learned)), truncated, dropped, empty);
}

std::vector<ChatMessage> messages_for(ChatFormat format, const Instruction& instruction) {
  std::vector<ChatMessage> messages = instruction.messages;
  if (instruction.input.empty()) return messages;
  std::string& asked = messages.front().content;
  if (format == ChatFormat::alpaca) {
    asked += "\n\n### Input:\n" + instruction.input;
    messages.insert(messages.begin(), {Role::system, kAlpacaTaskWithInput});
  } else if (format == ChatFormat::longlora) {
    asked += " \n" + instruction.input;
    messages.insert(messages.begin(), {Role::system, kLlama2System});
  } else {
    asked += "\n" + instruction.input;
  }
  return messages;
}

std::optional<int64_t> cut_material(const text::Tokenizer& tokenizer, ChatFormat format,
                                    std::span<const ChatMessage> messages, int64_t length, ChatTokens& tokens) {
  const auto size = static_cast<int64_t>(tokens.ids.size()), excess = size - length;
  const auto longest = std::max_element(messages.begin(), messages.end(), [](const auto& a, const auto& b) {
    return (a.role == Role::user ? a.content.size() : 0) < (b.role == Role::user ? b.content.size() : 0);
  });
  // Where a part of the message stands among the ids: what they have in common with those of the conversation in which
  // that part is all of the message.
  std::vector<ChatMessage> other(messages.begin(), messages.end());
  const auto with = [&](const std::string& content) {
    other[static_cast<size_t>(longest - messages.begin())].content = content;
    return encode_chat(tokenizer, format, other).ids;
  };
  constexpr const char* kSpace = " \t\r\n";
  std::string text = longest->content;
  text.erase(text.find_last_not_of(kSpace) + 1);
  text.erase(0, text.find_first_not_of(kSpace));
  const size_t last_break = text.find_last_of('\n');
  const Ids none = with(""), first = with(text.substr(0, text.find('\n'))),
            last = with(last_break == std::string::npos ? text : text.substr(last_break + 1));
  const int64_t begin = common_prefix(tokens.ids, none), end = size - common_suffix(tokens.ids, none);
  const int64_t head = std::min(common_prefix(tokens.ids, first) - begin, length / 8);
  // One more: a tokenizer may see the line's first word otherwise without the line break before it.
  const int64_t tail = std::min(common_suffix(tokens.ids, last) - (size - end) + 1, length / 8);
  const int64_t low = begin + head, high = end - tail;
  if (high - low < excess) return std::nullopt;
  const int64_t at = std::clamp((begin + end - excess) / 2, low, high - excess);
  tokens.ids.erase(tokens.ids.begin() + at, tokens.ids.begin() + at + excess);
  tokens.learn.erase(tokens.learn.begin() + at, tokens.learn.begin() + at + excess);
  return excess;
}

SampleReport read_samples(const text::Tokenizer& tokenizer, const SampleOptions& options,
                          const std::function<void(Sample&&)>& sink) {
  SampleReport report;
  Progress progress(options.name, 0, "entries");
  int64_t entries = 0;
  std::vector<Work> batch;
  const auto wants_more = [&] { return options.limit == 0 || report.samples < options.limit; };
  const auto finish_batch = [&] {
    for_each_piece(batch.size(), [&](size_t i) { encode(tokenizer, options, batch[i]); });
    for (Work& work : batch) {
      if (!wants_more()) break;
      const ChatTokens& tokens = work.sample.tokens;
      if (!learns(tokens)) {
        ++report.empty;
      } else if (static_cast<int64_t>(tokens.ids.size()) > options.length) {
        ++report.dropped;
      } else {
        ++report.samples;
        report.tokens += static_cast<int64_t>(tokens.ids.size());
        report.learned += std::count(tokens.learn.begin(), tokens.learn.end(), uint8_t{1});
        report.truncated += work.sample.cut > 0 ? 1 : 0;
        sink(std::move(work.sample));
      }
    }
    entries += static_cast<int64_t>(batch.size());
    batch.clear();
    progress.update(entries);
    if (stop_requested()) throw Stopped("stopped while reading " + options.name + "; run the same command again");
  };
  for (const fs::path& path : expand(options.patterns)) {
    if (!wants_more()) break;
    read_instructions(path, [&](Instruction&& instruction) {
      batch.push_back({std::move(instruction), {}});
      const size_t enough = options.limit > 0 ? std::min<size_t>(kBatch, static_cast<size_t>(options.limit)) : kBatch;
      if (batch.size() >= enough) finish_batch();
      return wants_more();
    });
    finish_batch();
  }
  progress.clear();
  return report;
}

TokenSource open_samples(const text::Tokenizer& tokenizer, const SampleOptions& options, SampleReport& report) {
  std::vector<int32_t> ids;
  std::vector<uint8_t> learn;
  std::vector<int64_t> documents = {0};
  report = read_samples(tokenizer, options, [&](Sample&& sample) {
    ids.insert(ids.end(), sample.tokens.ids.begin(), sample.tokens.ids.end());
    learn.insert(learn.end(), sample.tokens.learn.begin(), sample.tokens.learn.end());
    documents.push_back(static_cast<int64_t>(ids.size()));
  });
  if (report.samples == 0) {
    input_error("{}: no sample is left: {} were dropped as longer than {} tokens, {} have no answer", options.name,
                report.dropped, options.length, report.empty);
  }
  return TokenSource::of_tokens(std::move(ids), std::move(documents), std::move(learn));
}

}  // namespace longlora::data

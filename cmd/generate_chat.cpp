// `longlora generate --chat`: a conversation on a terminal, or one piped in, a turn a line.
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>

#include "cmd/generate_modes.h"
#include "core/base/log.h"
#include "core/base/signal.h"
#include "core/eval/conversation.h"

namespace longlora::cmd {
namespace {

constexpr const char* kHelp =
    "A line is a message; Ctrl-C ends an answer.\n"
    "  /file PATH  put the text of a file before the next message (an empty line sends it alone)\n"
    "  /reset      forget the conversation\n"
    "  /quit       leave; the end of the input does too\n"
    "A message that begins with / is written with a space before it.\n";

// Lines of standard input. Unlike std::getline it comes back when a signal arrives.
class LineInput {
 public:
  // The next line; empty at the end of the input and when a signal came.
  std::optional<std::string> next() {
    while (true) {
      if (const size_t end = buffer_.find('\n'); end != std::string::npos) return take(end, end + 1);
      if (ended_) break;
      pollfd input{STDIN_FILENO, POLLIN, 0};
      if (::poll(&input, 1, -1) < 0 && errno != EINTR) fail("standard input: {}", std::strerror(errno));
      if (stop_requested()) return std::nullopt;
      if (input.revents == 0) continue;
      char bytes[4096];
      const ssize_t n = ::read(STDIN_FILENO, bytes, sizeof bytes);
      if (n > 0) buffer_.append(bytes, static_cast<size_t>(n));
      if (n == 0) ended_ = true;
      if (n < 0 && errno != EINTR) fail("standard input: {}", std::strerror(errno));
    }
    if (buffer_.empty()) return std::nullopt;
    return take(buffer_.size(), buffer_.size());  // a last line without an end
  }

 private:
  std::string take(size_t end, size_t next) {
    std::string line = buffer_.substr(0, end);
    buffer_.erase(0, next);
    if (line.ends_with('\r')) line.pop_back();
    return line;
  }

  std::string buffer_;
  bool ended_ = false;
};

class Chat {
 public:
  Chat(const GenerateArguments& arguments, const adapt::OpenedModel& opened, eval::ConversationOptions options)
      : conversation_(*opened.llama, opened.tokenizer, opened.stop, std::move(options)),
        quiet_(arguments.json == "-"),
        terminal_(::isatty(STDIN_FILENO) != 0) {
    if (arguments.json) json_.emplace(*arguments.json);
  }

  Exit run(const std::optional<std::string>& first) {
    if (terminal_) say_on_stop(nullptr);  // an answer that ends says enough
    if (terminal_) fmt::print(stderr, "{}", kHelp);
    if (first) attempt([&] { say(*first); });
    LineInput input;
    while (!stop_requested() && !left_) {
      if (terminal_) fmt::print(stderr, "> ");
      const auto line = input.next();
      if (!line) break;
      attempt([&] { take(*line); });
    }
    // A Ctrl-C at the prompt of a terminal leaves, like /quit.
    if (!left_ && stop_requested() && (!terminal_ || stop_signal() != SIGINT))
      throw Stopped("stopped; what came after was not answered");
    return Exit::done;
  }

 private:
  // On a terminal a mistake is said and mended with the next line; what is piped in was written for all of it to work.
  void attempt(const std::function<void()>& what) {
    try {
      what();
    } catch (const Error& error) {
      if (!terminal_) throw;
      fmt::print(stderr, "{}\n", error.what());
    }
  }

  void take(const std::string& line) {
    const auto blank = [](std::string text) {
      text.erase(0, text.find_first_not_of(" \t"));
      return text.erase(text.find_last_not_of(" \t") + 1);
    };
    if (!line.starts_with('/')) {
      const std::string message = blank(line);
      if (message.empty() && material_.empty()) return;
      say(material_.empty() ? message : message.empty() ? material_ : material_ + "\n" + message);
    } else if (blank(line) == "/file") {
      usage_error("/file: which one? Give /file PATH");
    } else if (line.starts_with("/file ")) {
      material_ = read_file(blank(line.substr(6)));
      fmt::print(stderr, "{} bytes go before the next message\n", material_.size());
    } else if (const std::string command = blank(line); command == "/reset") {
      conversation_.reset();
      material_.clear();
      fmt::print(stderr, "the conversation begins anew\n");
    } else if (command == "/quit") {
      left_ = true;
    } else if (command == "/help") {
      fmt::print(stderr, "{}", kHelp);
    } else {
      usage_error("{}: no such command; /help lists them, and a space before it makes it a message", command);
    }
  }

  void say(const std::string& message) {
    const eval::Answer answer = conversation_.ask(message, [&](const std::string& piece) {
      if (quiet_) return;
      fmt::print("{}", piece);
      std::fflush(stdout);
    });
    material_.clear();
    if (!quiet_) {
      fmt::print("\n");
      std::fflush(stdout);
    }
    if (conversation_.full()) log::warn("the context is full: the answer ends here; /reset begins anew");
    if (json_) {
      nlohmann::ordered_json line = {{"index", turns_++}, {"reused_tokens", conversation_.reused_tokens()}};
      add_answer(line, conversation_.prompt_tokens(), answer);
      json_->write(line);
    }
    if (terminal_ && stop_signal() == SIGINT) clear_stop();  // it was meant for the answer
  }

  eval::Conversation conversation_;
  std::optional<JsonLines> json_;
  bool quiet_, terminal_, left_ = false;
  std::string material_;  // of /file, for the next message
  int64_t turns_ = 0;
};

}  // namespace

Exit chat(const GenerateArguments& arguments, const std::optional<std::string>& system,
          const std::optional<std::string>& first) {
  const text::ChatFormat format = arguments.chat_format();
  const adapt::OpenedModel opened = open_with_tokenizer(arguments);
  constexpr int64_t kNoLimit = 100'000'000;
  Chat session(arguments, opened,
               {.format = format,
                .system = system,
                .answer = arguments.answer,
                .limit = arguments.beyond ? kNoLimit : opened.llama->config().covered_length()});
  return session.run(first);
}

}  // namespace longlora::cmd

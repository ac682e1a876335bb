#include "core/data/reader.h"

#include <algorithm>
#include <istream>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/progress.h"
#include "core/data/input_buffer.h"

namespace longlora::data {
namespace {

using Json = nlohmann::json;

// Picks the "text" of each record out of the parser's events, so that no record and no array is ever held
// whole. A record is the value at the top, or, where arrays are allowed, each element of an array at the top.
class TextPicker : public nlohmann::json_sax<Json> {
 public:
  TextPicker(bool arrays, std::function<bool(std::string&&)> sink) : arrays_(arrays), sink_(std::move(sink)) {}

  [[nodiscard]] const std::string& error() const { return error_; }

  bool null() override { return value("null"); }
  bool boolean(bool) override { return value("a boolean"); }
  bool number_integer(number_integer_t) override { return value("a number"); }
  bool number_unsigned(number_unsigned_t) override { return value("a number"); }
  bool number_float(number_float_t, const string_t&) override { return value("a number"); }
  bool binary(binary_t&) override { return value("binary data"); }

  bool string(string_t& text) override {
    if (!at_text()) return value("a string");
    if (text.size() > kMaxDocumentBytes) {
      return stop(fmt::format("the text is longer than {}", format_bytes(static_cast<double>(kMaxDocumentBytes))));
    }
    text_ = std::move(text);
    found_ = true;
    return true;
  }
  bool key(string_t& name) override {
    if (depth_ != record_ + 1) return true;
    is_text_ = name == "text";
    return is_text_ && found_ ? stop("the field \"text\" comes twice") : true;
  }
  bool start_object(size_t) override {
    if (depth_ == record_)
      found_ = is_text_ = false;
    else if (at_text())
      return value("an object");
    ++depth_;
    return true;
  }
  bool end_object() override {
    if (--depth_ != record_) return true;
    if (!found_) return stop("the object has no field \"text\"");
    return sink_(std::move(text_));
  }
  bool start_array(size_t) override {
    if (depth_ == 0 && arrays_)
      record_ = 1;
    else if (!value("an array"))
      return false;
    ++depth_;
    return true;
  }
  bool end_array() override {
    --depth_;
    return true;
  }
  // "[json.exception.parse_error.101] parse error at line 1, column 9: syntax error ...; last read: '...'":
  // the place is ours to tell and what was read last may be a whole book.
  bool parse_error(size_t, const std::string&, const nlohmann::detail::exception& error) override {
    std::string what = error.what();
    if (const size_t place = what.find("column "); place != std::string::npos) {
      what = what.substr(std::min(what.size(), what.find(": ", place) + 2));
    }
    return stop("not valid JSON: " + what.substr(0, what.find("; last read")));
  }

 private:
  [[nodiscard]] bool at_text() const { return depth_ == record_ + 1 && is_text_; }
  bool value(const char* kind) {
    if (depth_ == record_) return stop(fmt::format("an object with the field \"text\" is needed, found {}", kind));
    return at_text() ? stop(fmt::format("the field \"text\" is {}, not a string", kind)) : true;
  }
  bool stop(std::string what) {
    error_ = std::move(what);
    return false;
  }

  bool arrays_;
  std::function<bool(std::string&&)> sink_;
  int64_t depth_ = 0, record_ = 0;  // containers open now; containers open around a record
  bool is_text_ = false, found_ = false;
  std::string text_, error_;
};

void read_json_lines(const fs::path& path, const std::function<bool(Document&&)>& sink) {
  InputBuffer input(path, InvalidUtf8::replace);
  bool wanted = true;
  std::string line;
  for (int64_t number = 1; wanted && input.read_line(line, kMaxDocumentBytes); ++number) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    TextPicker picker(false, [&](std::string&& text) { return wanted = sink({std::move(text), input.consumed()}); });
    Json::sax_parse(line, &picker);
    if (!picker.error().empty()) input_error("{}:{}: {}", path.string(), number, picker.error());
  }
}

void read_json(const fs::path& path, const std::function<bool(Document&&)>& sink) {
  InputBuffer input(path, InvalidUtf8::replace);
  std::istream stream(&input);
  TextPicker picker(true, [&](std::string&& text) { return sink({std::move(text), input.consumed()}); });
  Json::sax_parse(stream, &picker);
  if (!picker.error().empty()) input_error("{}:{}: {}", path.string(), input.line(), picker.error());
}

}  // namespace

InputKind input_kind(const fs::path& path) {
  const bool compressed = path.extension() == ".zst";
  const std::string ending = compressed ? path.stem().extension().string() : path.extension().string();
  if (ending == ".txt") return InputKind::text;
  if (ending == ".jsonl") return InputKind::json_lines;
  if (ending == ".json") return InputKind::json;
  if (ending == ".bin" && !compressed) return InputKind::tokens;
  input_error("{}: unknown kind of file; known are .txt, .jsonl and .json, each also with .zst, and .bin (tokens)",
              path.string());
}

void read_documents(const fs::path& path, const std::function<bool(Document&&)>& sink) {
  switch (input_kind(path)) {
    case InputKind::text: {
      InputBuffer input(path, InvalidUtf8::keep);
      std::string text = input.read_rest(kMaxDocumentBytes);
      sink({std::move(text), input.consumed()});
      return;
    }
    case InputKind::json_lines:
      return read_json_lines(path, sink);
    case InputKind::json:
      return read_json(path, sink);
    case InputKind::tokens:
      input_error("{}: holds tokens, text is needed", path.string());
  }
}

}  // namespace longlora::data

#include "core/recipe/located_json.h"

#include <algorithm>
#include <iterator>

namespace longlora::recipe {
namespace {

using json = nlohmann::json;

// The parser reads through this iterator, which tells how far it has come. The parser calls its handler
// before it reads the next token, so the last character read belongs to the current one (or directly follows
// a number).
struct Cursor {
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  const char* at;
  const char** reached;

  reference operator*() const { return *at; }
  Cursor& operator++() {
    *reached = ++at;
    return *this;
  }
  bool operator==(const Cursor& other) const { return at == other.at; }
  bool operator!=(const Cursor& other) const { return at != other.at; }
};

// nlohmann's SAX handler: builds the tree.
class Builder {
 public:
  explicit Builder(std::string_view text) : reached(text.data()), counted_(text.data()) {}

  bool null() { return scalar(nullptr); }
  bool boolean(bool x) { return scalar(x); }
  bool number_integer(int64_t x) { return scalar(x); }
  bool number_unsigned(uint64_t x) { return scalar(x); }
  bool number_float(double x, const std::string&) { return scalar(x); }
  bool string(std::string& x) { return scalar(std::move(x)); }
  bool binary(json::binary_t&) { return false; }  // not in JSON text
  bool start_object(size_t) { return open(json::object()); }
  bool start_array(size_t) { return open(json::array()); }
  bool key(std::string& x) {
    key_ = std::move(x);
    return true;
  }
  bool end_object() { return close(); }
  bool end_array() { return close(); }
  bool parse_error(size_t, const std::string&, const json::exception& error) {
    // "[json.exception.parse_error.101] parse error at line 2, column 3: syntax error while ..."
    std::string what = error.what();
    what.erase(0, what.find("] ") + 2);
    if (what.starts_with("parse error at")) what.erase(0, what.find(": ") + 2);
    throw SyntaxError(line(), what);
  }

  const char* reached;
  Node root;

 private:
  // The line of the last character read.
  size_t line() {
    const char* last = std::max(counted_, reached - 1);
    line_ += static_cast<size_t>(std::count(counted_, last, '\n'));
    counted_ = last;
    return line_;
  }
  bool scalar(json value) {
    add({std::move(key_), line(), std::move(value), {}});
    return true;
  }
  bool open(json kind) {
    if (open_.size() == 32) throw SyntaxError(line(), "nested too deeply");
    open_.push_back({std::move(key_), line(), std::move(kind), {}});
    key_.clear();
    return true;
  }
  bool close() {
    Node done = std::move(open_.back());
    open_.pop_back();
    add(std::move(done));
    return true;
  }
  void add(Node node) {
    key_.clear();
    if (open_.empty()) {
      root = std::move(node);
    } else {
      open_.back().children.push_back(std::move(node));
    }
  }

  std::vector<Node> open_;
  std::string key_;
  const char* counted_;
  size_t line_ = 1;
};

}  // namespace

json Node::list() const {
  if (!value.is_array()) return value;
  json out = json::array();
  for (const Node& child : children) out.push_back(child.list());
  return out;
}

Node parse_located(std::string_view text) {
  Builder builder(text);
  const Cursor begin{text.data(), &builder.reached}, end{text.data() + text.size(), &builder.reached};
  json::sax_parse(begin, end, &builder, nlohmann::detail::input_format_t::json, true, true);
  return std::move(builder.root);
}

}  // namespace longlora::recipe

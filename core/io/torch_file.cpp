#include "core/io/torch_file.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <map>
#include <optional>
#include <vector>

#include "core/base/error.h"

// A pickle is a program for a small stack machine. This one knows the instructions that torch.save emits for a state
// dictionary (Python's Lib/pickletools.py names them) and three functions: collections.OrderedDict,
// torch._utils._rebuild_tensor_v2 and torch._utils._rebuild_parameter.
namespace longlora::io {
namespace {

struct Value;
using Ref = Value*;  // into the machine's values_, so that no nesting is deep to take down

enum class Kind { none, number, text, tuple, dict, global, storage, tensor, mark };

struct Value {
  Kind kind = Kind::none;
  int64_t number = 0;
  std::string text;                  // of a text; "module name" of a global
  std::vector<Ref> items;            // of a tuple; keys and values by turns of a dict
  std::optional<TensorView> tensor;  // of a tensor; of a storage its elements as [n]
};

std::optional<DType> dtype_of_storage(const std::string& global) {
  static const std::map<std::string, DType> known = {
      {"torch FloatStorage", DType::f32},   {"torch HalfStorage", DType::f16}, {"torch BFloat16Storage", DType::bf16},
      {"torch DoubleStorage", DType::f64},  {"torch LongStorage", DType::i64}, {"torch IntStorage", DType::i32},
      {"torch ShortStorage", DType::i16},   {"torch CharStorage", DType::i8},  {"torch ByteStorage", DType::u8},
      {"torch BoolStorage", DType::boolean}};
  const auto found = known.find(global);
  return found == known.end() ? std::nullopt : std::optional(found->second);
}

class Machine {
 public:
  Machine(std::span<const std::byte> program, const ZipFile& zip, std::string folder, std::string where)
      : program_(program), zip_(zip), folder_(std::move(folder)), where_(std::move(where)) {}

  Ref run();  // the dictionary that the file is; lives as long as the machine

 private:
  [[noreturn]] void damaged() const { input_error("{}: is damaged (data.pkl cannot be read)", where_); }
  [[noreturn]] void refuse(const std::string& what) const {
    input_error(
        "{}: holds {}, more than tensors; such a file can run code where it is unpickled and is not read. Save the "
        "tensors as safetensors instead",
        where_, what);
  }

  std::span<const std::byte> take(uint64_t size) {
    if (size > program_.size() - at_) damaged();
    at_ += size;
    return program_.subspan(at_ - size, size);
  }
  template <class T>
  T number() {
    T value;
    std::memcpy(&value, take(sizeof(T)).data(), sizeof(T));
    return value;
  }
  std::string text(uint64_t size) {
    const auto bytes = take(size);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }
  std::string line() {
    std::string out;
    while (true) {
      const auto c = number<char>();
      if (c == '\n') return out;
      out += c;
    }
  }

  void push(Value value) { stack_.push_back(&values_.emplace_back(std::move(value))); }
  void push_number(int64_t value) {
    push({.kind = Kind::number, .number = value, .text = {}, .items = {}, .tensor = {}});
  }
  void push_text(std::string value) {
    push({.kind = Kind::text, .number = 0, .text = std::move(value), .items = {}, .tensor = {}});
  }
  Ref pop() {
    if (stack_.empty()) damaged();
    Ref top = stack_.back();
    stack_.pop_back();
    return top;
  }
  Ref pop(Kind kind) {
    Ref top = pop();
    if (top->kind != kind) damaged();
    return top;
  }
  std::vector<Ref> pop_to_mark() {
    std::vector<Ref> items;
    while (true) {
      Ref top = pop();
      if (top->kind == Kind::mark) break;
      items.push_back(std::move(top));
    }
    std::reverse(items.begin(), items.end());
    return items;
  }
  void push_tuple(size_t size) {
    std::vector<Ref> items;
    for (size_t i = 0; i < size; ++i) items.insert(items.begin(), pop());
    push({.kind = Kind::tuple, .number = 0, .text = {}, .items = std::move(items), .tensor = {}});
  }
  void set_items(const std::vector<Ref>& pairs) {
    if (stack_.empty() || stack_.back()->kind != Kind::dict || pairs.size() % 2 != 0) damaged();
    auto& items = stack_.back()->items;
    items.insert(items.end(), pairs.begin(), pairs.end());
  }
  void remember(uint64_t key) {
    if (stack_.empty()) damaged();
    memo_[key] = stack_.back();
  }
  void recall(uint64_t key) {
    const auto found = memo_.find(key);
    if (found == memo_.end()) damaged();
    stack_.push_back(found->second);
  }

  void push_global(const std::string& name);
  void push_storage(const Value& id);
  void call(const Value& function, const Value& arguments);
  TensorView tensor(const Value& arguments) const;
  void step(uint8_t instruction);

  std::span<const std::byte> program_;
  const ZipFile& zip_;
  std::string folder_, where_;
  uint64_t at_ = 0;
  std::deque<Value> values_;
  std::vector<Ref> stack_;
  std::map<uint64_t, Ref> memo_;
  bool stopped_ = false;
};

void Machine::push_global(const std::string& name) {
  const bool known = name == "collections OrderedDict" || name == "torch._utils _rebuild_tensor_v2" ||
                     name == "torch._utils _rebuild_parameter" || dtype_of_storage(name);
  if (!known) refuse("'" + name + "'");
  push({.kind = Kind::global, .number = 0, .text = name, .items = {}, .tensor = {}});
}

// ("storage", type, key, device, elements): the bytes are the archive's member data/KEY.
void Machine::push_storage(const Value& id) {
  if (id.kind != Kind::tuple || id.items.size() != 5 || id.items[0]->text != "storage") refuse("an unknown object");
  const auto dtype = dtype_of_storage(id.items[1]->text);
  const auto member = zip_.members().find(folder_ + "data/" + id.items[2]->text);
  if (!dtype || id.items[2]->kind != Kind::text || member == zip_.members().end()) damaged();
  const int64_t count = id.items[4]->number;
  const auto bytes = member->second;
  if (count < 0 || static_cast<uint64_t>(count) > bytes.size() / static_cast<uint64_t>(size_of(*dtype))) damaged();
  push({.kind = Kind::storage, .number = 0, .text = {}, .items = {}, .tensor = TensorView{*dtype, {count}, bytes}});
}

// (storage, offset, sizes, strides, ...)
TensorView Machine::tensor(const Value& arguments) const {
  const auto& a = arguments.items;
  if (a.size() < 4 || a[0]->kind != Kind::storage || a[1]->kind != Kind::number || a[2]->kind != Kind::tuple ||
      a[3]->kind != Kind::tuple || a[2]->items.size() != a[3]->items.size()) {
    damaged();
  }
  const TensorView& storage = *a[0]->tensor;
  TensorView view{storage.dtype, {}, {}};
  int64_t count = 1;
  for (size_t i = a[2]->items.size(); i-- > 0;) {
    const int64_t size = a[2]->items[i]->number, stride = a[3]->items[i]->number;
    if (size < 0) damaged();
    if (size > 1 && stride != count) input_error("{}: holds a tensor that is not stored row by row", where_);
    if (__builtin_mul_overflow(count, size, &count)) damaged();
    view.shape.insert(view.shape.begin(), size);
  }
  const int64_t offset = a[1]->number, width = size_of(view.dtype);
  if (offset < 0 || offset > storage.shape[0] || count > storage.shape[0] - offset) damaged();
  view.bytes = storage.bytes.subspan(static_cast<size_t>(offset * width), static_cast<size_t>(count * width));
  return view;
}

void Machine::call(const Value& function, const Value& arguments) {
  if (function.kind != Kind::global || arguments.kind != Kind::tuple) damaged();
  if (function.text == "collections OrderedDict") {
    if (!arguments.items.empty()) refuse("a dictionary built from a list");
    push({.kind = Kind::dict, .number = 0, .text = {}, .items = {}, .tensor = {}});
  } else if (function.text == "torch._utils _rebuild_tensor_v2") {
    push({.kind = Kind::tensor, .number = 0, .text = {}, .items = {}, .tensor = tensor(arguments)});
  } else if (function.text == "torch._utils _rebuild_parameter" && !arguments.items.empty()) {
    stack_.push_back(arguments.items[0]);
  } else {
    refuse("a call of '" + function.text + "'");
  }
}

void Machine::step(uint8_t instruction) {
  switch (instruction) {
    case 0x80:  // PROTO
      (void)take(1);
      return;
    case 0x95:  // FRAME
      (void)take(8);
      return;
    case '.':  // STOP
      stopped_ = true;
      return;
    case '(':
      return push({.kind = Kind::mark, .number = 0, .text = {}, .items = {}, .tensor = {}});
    case 'N':
      return push({});
    case 0x88:  // NEWTRUE
      return push_number(1);
    case 0x89:  // NEWFALSE
      return push_number(0);
    case 'K':
      return push_number(number<uint8_t>());
    case 'M':
      return push_number(number<uint16_t>());
    case 'J':
      return push_number(number<int32_t>());
    case 0x8a: {  // LONG1: two's complement, little-endian, of that many bytes
      const auto bytes = take(number<uint8_t>());
      if (bytes.size() > 8) damaged();
      uint64_t value = 0;
      for (size_t i = 0; i < bytes.size(); ++i) value |= static_cast<uint64_t>(bytes[i]) << (8 * i);
      const bool negative = !bytes.empty() && (bytes.back() & std::byte{0x80}) != std::byte{0};
      if (negative && bytes.size() < 8) value |= ~uint64_t{0} << (8 * bytes.size());
      return push_number(static_cast<int64_t>(value));
    }
    case 'X':
      return push_text(text(number<uint32_t>()));
    case 0x8c:  // SHORT_BINUNICODE
      return push_text(text(number<uint8_t>()));
    case ')':
      return push_tuple(0);
    case 0x85:  // TUPLE1 to TUPLE3
    case 0x86:
    case 0x87:
      return push_tuple(instruction - 0x84U);
    case 't': {
      std::vector<Ref> items = pop_to_mark();
      return push({.kind = Kind::tuple, .number = 0, .text = {}, .items = std::move(items), .tensor = {}});
    }
    case '}':
      return push({.kind = Kind::dict, .number = 0, .text = {}, .items = {}, .tensor = {}});
    case 's': {
      const Ref value = pop(), key = pop();
      return set_items({key, value});
    }
    case 'u':
      return set_items(pop_to_mark());
    case 'q':
      return remember(number<uint8_t>());
    case 'r':
      return remember(number<uint32_t>());
    case 0x94:  // MEMOIZE
      return remember(memo_.size());
    case 'h':
      return recall(number<uint8_t>());
    case 'j':
      return recall(number<uint32_t>());
    case 'c': {
      const std::string module = line();
      return push_global(module + " " + line());
    }
    case 0x93: {  // STACK_GLOBAL
      const Ref name = pop(Kind::text), module = pop(Kind::text);
      return push_global(module->text + " " + name->text);
    }
    case 'Q': {
      const Ref id = pop();
      return push_storage(*id);
    }
    case 'R': {
      const Ref arguments = pop(), function = pop();
      return call(*function, *arguments);
    }
    case 'b': {  // BUILD: a state dictionary's own attributes (_metadata), which say nothing of the tensors
      (void)pop();
      if (stack_.empty() || stack_.back()->kind != Kind::dict) refuse("an object with a state of its own");
      return;
    }
    default:
      refuse(fmt::format("the pickle instruction 0x{:02x}", instruction));
  }
}

Ref Machine::run() {
  while (!stopped_) step(number<uint8_t>());
  return pop(Kind::dict);
}

}  // namespace

TorchFile::TorchFile(const fs::path& path) : zip_(path) {
  const std::string where = path.string();
  std::string folder;
  for (const auto& [name, bytes] : zip_.members()) {
    if (name.ends_with("/data.pkl")) folder = name.substr(0, name.size() - std::string_view("data.pkl").size());
  }
  const auto program = zip_.members().find(folder + "data.pkl");
  if (program == zip_.members().end()) input_error("{}: is no file of torch.save: it has no data.pkl", where);
  if (const auto order = zip_.members().find(folder + "byteorder"); order != zip_.members().end()) {
    const std::string text(reinterpret_cast<const char*>(order->second.data()), order->second.size());
    if (text != "little") input_error("{}: its byte order is '{}'; only little-endian files are read", where, text);
  }
  Machine machine(program->second, zip_, folder, where);
  const Ref root = machine.run();
  for (size_t i = 0; i + 1 < root->items.size(); i += 2) {
    const Value &key = *root->items[i], &value = *root->items[i + 1];
    if (key.kind != Kind::text || value.kind != Kind::tensor)
      input_error("{}: is no plain dictionary of tensors (entry '{}')", where, key.text);
    tensors_.insert_or_assign(key.text, *value.tensor);
  }
}

}  // namespace longlora::io

#include "core/train/weight_shards.h"

#include <algorithm>

namespace longlora::train {
namespace {

constexpr int64_t kAlign = 64;  // bytes

// [count] bytes of it from byte `begin` on.
at::Tensor bytes_of(const c10::Storage& storage, int64_t begin, int64_t count) {
  at::Tensor bytes = at::empty({0}, at::TensorOptions().dtype(at::kByte).device(storage.device()));
  return bytes.set_(storage, begin, {count}, {1});
}

}  // namespace

WeightShards::WeightShards(model::Llama& llama, const model::Cut& cut, bool trained)
    : parameters_(llama.units()), cut_(cut), trained_(trained), units_(parameters_.size()) {}

int64_t WeightShards::slice_bytes(int64_t whole, int ranks) {
  return ((whole + ranks - 1) / ranks + kAlign - 1) / kAlign * kAlign;
}

void WeightShards::add(Unit& unit, Piece piece) const {
  piece.column = unit.width;
  unit.width += piece.each;
  unit.pieces.push_back(std::move(piece));
}

void WeightShards::take(size_t index) {
  Unit& unit = units_[index];
  std::vector<at::Tensor> frozen, all;
  for (model::Parameter* p : parameters_[index]) {
    if (!p->trainable()) frozen.push_back(p->value);
    if (!p->trainable() || trained_) all.push_back(p->value);
    if (!p->trainable() || !trained_) continue;
    const auto element = static_cast<int64_t>(p->value.element_size());
    p->grad = at::Tensor();
    add(unit, {.storage = p->value.storage(),
               .begin = p->value.storage_offset() * element,
               .bytes = p->value.numel() * element,
               .each = p->cut.count(p->value.numel()) * element,
               .column = 0,
               .trained = p});
  }
  for (const model::Extent& memory : model::memory_under(frozen)) {
    const int64_t each = slice_bytes(memory.bytes, cut_.ranks);
    add(unit, {.storage = memory.storage, .begin = 0, .bytes = memory.bytes, .each = each, .column = 0, .trained = {}});
  }
  if (unit.pieces.empty()) return;
  unit.memory = model::memory_under(all);
  unit.mine = at::zeros({unit.width}, all.front().options().dtype(at::kByte));
  for (const Piece& piece : unit.pieces) {
    const int64_t begin = std::min(piece.bytes, cut_.rank * piece.each),
                  there = std::min(piece.each, piece.bytes - begin);
    unit.mine.narrow(0, piece.column, there).copy_(bytes_of(piece.storage, piece.begin + begin, there));
  }
  for (const model::Extent& memory : unit.memory) memory.drop();
}

void WeightShards::start(Unit& unit) {
  if (unit.pieces.empty() || unit.held() || unit.all.defined()) return;
  unit.all = at::empty({cut_.ranks, unit.width}, unit.mine.options());
  unit.pending = group_->start_all_gather(unit.all, unit.mine);
}

void WeightShards::put_in_place(Unit& unit) const {
  for (const model::Extent& memory : unit.memory) memory.take();
  for (const Piece& piece : unit.pieces) {
    for (int rank = 0; rank < cut_.ranks; ++rank) {
      const int64_t begin = std::min(piece.bytes, rank * piece.each), there = std::min(piece.each, piece.bytes - begin);
      bytes_of(piece.storage, piece.begin + begin, there).copy_(unit.all[rank].narrow(0, piece.column, there));
    }
  }
  unit.all = at::Tensor();
}

void WeightShards::needed(size_t index, size_t next) {
  Unit& unit = units_[index];
  start(unit);
  unit.pending.wait();
  if (unit.all.defined()) put_in_place(unit);
  if (next != index) start(units_[next]);
}

void WeightShards::done(size_t index) {
  for (const model::Extent& memory : units_[index].memory) memory.drop();
}

void WeightShards::refresh() {
  for (const Unit& unit : units_) {
    for (const Piece& piece : unit.pieces) {
      if (piece.trained == nullptr) continue;
      const model::Parameter& p = *piece.trained;
      unit.mine.narrow(0, piece.column, piece.each).view(p.value.scalar_type()).copy_(p.scaled(p.master));
    }
  }
}

int64_t WeightShards::kept_bytes() const {
  int64_t bytes = 0;
  for (const Unit& unit : units_) bytes += unit.width;
  return bytes;
}

int64_t WeightShards::gathered_bytes() const {
  int64_t bytes = 0;
  for (const Unit& unit : units_) {
    if (unit.all.defined()) bytes += static_cast<int64_t>(unit.all.nbytes());
    for (const model::Extent& memory : unit.memory) bytes += static_cast<int64_t>(memory.storage.nbytes());
  }
  return bytes;
}

}  // namespace longlora::train

#include "core/train/trained.h"

#include <algorithm>
#include <utility>

namespace longlora::train {
namespace {

// An uncut master copy is moved, so that there is room to the end of its last vector.
at::Tensor flat_master(model::Parameter& p) {
  if (!p.cut.whole()) return p.master;
  const at::Tensor flat = at::zeros({p.cut.count(p.master.numel())}, p.master.options());
  const at::Tensor place = flat.narrow(0, 0, p.master.numel()).view(p.master.sizes());
  place.copy_(p.master);
  p.master = place;
  return flat;
}

}  // namespace

Gradients gradients_of(Shard shard, bool full) {
  if (shard == Shard::none) return Gradients::whole;
  return shard == Shard::model && full ? Gradients::sliced_by_unit : Gradients::sliced;
}

Trained::Trained(model::Llama& llama, Gradients gradients, dist::Group& group, int64_t bucket)
    : kind_(gradients), group_(group) {
  for (model::Parameter* p : llama.trainable()) {
    p->grad = at::Tensor();  // moved; its memory is used again for what comes next
    slices_.push_back({p, flat_master(*p), {}, {}, {}});
  }
  make_buckets(llama, bucket);
  for (Bucket& b : buckets_) {
    const auto options = b.members.front()->master.options();
    if (kind_ != Gradients::sliced_by_unit) make_room(b);
    b.mine = sliced() ? at::zeros({b.width}, options) : b.gradients;
    for (size_t i = 0; i < b.members.size(); ++i) {
      Slice& slice = *b.members[i];
      slice.grad = b.mine.narrow(0, b.columns[i], slice.master.numel());
    }
  }
  for (Slice& slice : slices_) {
    slice.first = at::zeros_like(slice.master);
    slice.second = at::zeros_like(slice.master);
  }
}

void Trained::make_buckets(model::Llama& llama, int64_t most) {
  const auto units = llama.units();
  for (size_t unit = units.size(); unit-- > 0;) {
    if (kind_ == Gradients::sliced_by_unit && !buckets_.empty()) buckets_.push_back({.unit = unit});
    for (const model::Parameter* p : units[unit]) {
      const auto slice = std::find_if(slices_.begin(), slices_.end(), [&](const Slice& s) { return s.parameter == p; });
      if (slice == slices_.end()) continue;
      const int64_t n = slice->master.numel();
      const bool full = !buckets_.empty() && buckets_.back().width > 0 && (buckets_.back().width + n) * ranks() > most;
      if (buckets_.empty() || full) buckets_.push_back({.unit = unit});
      Bucket& bucket = buckets_.back();
      bucket.unit = unit;
      bucket.members.push_back(&*slice);
      bucket.columns.push_back(bucket.width);
      bucket.width += n;
    }
  }
  std::erase_if(buckets_, [](const Bucket& bucket) { return bucket.members.empty(); });
}

void Trained::make_room(Bucket& bucket) const {
  bucket.gradients = at::zeros({ranks() * bucket.width}, bucket.members.front()->master.options());
  for (size_t i = 0; i < bucket.members.size(); ++i) {
    model::Parameter& p = *bucket.members[i]->parameter;
    p.grad = bucket.gradients.narrow(0, ranks() * bucket.columns[i], p.value.numel()).view(p.value.sizes());
  }
}

void Trained::filling(size_t unit) {
  if (kind_ != Gradients::sliced_by_unit) return;
  for (Bucket& bucket : buckets_) {
    if (bucket.unit == unit && !bucket.gradients.defined()) make_room(bucket);
  }
}

void Trained::filled(size_t unit) {
  if (kind_ != Gradients::sliced_by_unit && !last_) return;
  const size_t before = begun_;
  while (begun_ < buckets_.size() && buckets_[begun_].unit >= unit) start_next();
  if (kind_ != Gradients::sliced_by_unit) return;
  while (finished_ < before) finish(buckets_[finished_++]);  // one unit's are under way while the next one's are made
  if (unit == 0) {
    while (finished_ < begun_) finish(buckets_[finished_++]);
    begun_ = finished_ = 0;
  }
}

void Trained::sum() {
  if (kind_ != Gradients::sliced_by_unit) {
    while (begun_ < buckets_.size()) start_next();
    while (finished_ < begun_) finish(buckets_[finished_++]);
  }
  begun_ = finished_ = 0;
  last_ = false;
}

void Trained::start_next() {
  constexpr size_t kUnderWay = 2;  // Gloo keeps a copy of each
  if (begun_ - finished_ == kUnderWay) finish(buckets_[finished_++]);
  start(buckets_[begun_++]);
}

void Trained::start(Bucket& bucket) const {
  if (!sliced()) {
    if (group_.size() > 1) bucket.pending = group_.start_all_reduce(bucket.gradients);
    return;
  }
  const bool alone = bucket.members.size() == 1;  // its slices lie as they have to
  bucket.rows = alone ? bucket.gradients : at::empty_like(bucket.gradients);
  for (size_t i = 0; i < bucket.members.size() && !alone; ++i) {
    const int64_t column = bucket.columns[i], n = bucket.members[i]->master.numel();
    bucket.rows.view({ranks(), bucket.width})
        .narrow(1, column, n)
        .copy_(bucket.gradients.narrow(0, ranks() * column, ranks() * n).view({ranks(), n}));
  }
  bucket.got = kind_ == Gradients::sliced_by_unit ? at::empty_like(bucket.mine) : bucket.mine;
  bucket.pending = group_.start_reduce_scatter(bucket.got, bucket.rows);
}

void Trained::finish(Bucket& bucket) const {
  bucket.pending.wait();
  if (kind_ == Gradients::sliced_by_unit) {
    bucket.mine.add_(bucket.got);
    bucket.gradients = at::Tensor();
    for (const Slice* slice : bucket.members) slice->parameter->grad = at::Tensor();
  }
  bucket.rows = bucket.got = at::Tensor();
}

void Trained::spread() {
  if (kind_ == Gradients::whole) {
    for (const Slice& slice : slices_) slice.parameter->sync();
  } else if (kind_ == Gradients::sliced) {
    for (const Bucket& bucket : buckets_) bucket.gradients.zero_();
    spread_values();
  }
}

// In the compute type, rounded before they are sent: the same bits as from a whole master copy. One bucket is under way while
// the one before is put in its place.
void Trained::spread_values() const {
  struct Sent {
    at::Tensor mine, all;
    dist::Pending pending;
  };
  const auto send = [&](const Bucket& bucket) {
    const auto options = bucket.members.front()->parameter->value.options();
    Sent sent{at::empty({bucket.width}, options), at::empty({ranks(), bucket.width}, options), {}};
    for (size_t i = 0; i < bucket.members.size(); ++i) {
      const Slice& slice = *bucket.members[i];
      sent.mine.narrow(0, bucket.columns[i], slice.master.numel()).copy_(slice.parameter->scaled(slice.master));
    }
    sent.pending = group_.start_all_gather(sent.all, sent.mine);
    return sent;
  };
  Sent next;
  for (size_t b = 0; b < buckets_.size(); ++b) {
    Sent now = b == 0 ? send(buckets_[b]) : std::move(next);
    if (b + 1 < buckets_.size()) next = send(buckets_[b + 1]);
    now.pending.wait();
    for (size_t i = 0; i < buckets_[b].members.size(); ++i) {
      const Slice& slice = *buckets_[b].members[i];
      const at::Tensor& value = slice.parameter->value;
      value.copy_(now.all.narrow(1, buckets_[b].columns[i], slice.master.numel())
                      .reshape({-1})
                      .narrow(0, 0, value.numel())
                      .view(value.sizes()));
    }
  }
}

at::Tensor Trained::whole(const at::Tensor& slice, at::IntArrayRef shape) const {
  at::Tensor all = slice;
  if (sliced()) {
    all = at::empty({ranks() * slice.numel()}, slice.options());
    group_.all_gather(all, slice);
  }
  return all.narrow(0, 0, c10::multiply_integers(shape)).view(shape);
}

}  // namespace longlora::train

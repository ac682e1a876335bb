#include "core/dist/sequence_attention.h"

#include "core/ops/attention_block.h"
#include "core/ops/sum_type.h"

namespace longlora::dist {
namespace {

struct Pair {
  at::Tensor k, v;  // [rows, KV heads, D]; or their gradients
};

at::Tensor part_of(const at::Tensor& x, const Range& rows, const Range& heads) {
  return x.narrow(0, rows.begin, rows.size()).narrow(1, heads.begin, heads.size());
}

Pair pair_of(const at::Tensor& k, const at::Tensor& v, const Keys& keys) {
  return {part_of(k, keys.rows, keys.kv_heads), part_of(v, keys.rows, keys.kv_heads)};
}

at::Tensor widened(const at::Tensor& x) {
  return x.to(ops::sum_type(x), /*non_blocking=*/false, /*copy=*/true);
}

Pair zeros_for(const Pair& p) {
  const auto options = p.k.options().dtype(ops::sum_type(p.k));
  return {at::zeros(p.k.sizes(), options), at::zeros(p.v.sizes(), options)};
}

// One buffer for all keys and values of a message, one after the other.
at::Tensor buffer_for(const std::vector<Keys>& parts, int64_t head_dim, const at::TensorOptions& options) {
  return at::empty({numbers(parts) * head_dim}, options);
}

std::vector<Pair> views(const at::Tensor& buffer, const std::vector<Keys>& parts, int64_t head_dim) {
  std::vector<Pair> result;
  int64_t at = 0;
  const auto next = [&](const Keys& keys) {
    const int64_t numbers = keys.numbers() * head_dim;
    at += numbers;
    return buffer.narrow(0, at - numbers, numbers).view({keys.rows.size(), keys.kv_heads.size(), head_dim});
  };
  for (const Keys& keys : parts) {
    at::Tensor k = next(keys), v = next(keys);
    result.push_back({std::move(k), std::move(v)});
  }
  return result;
}

at::Tensor packed(const std::vector<Keys>& parts, const std::vector<Pair>& pairs, int64_t head_dim,
                  const at::TensorOptions& options) {
  const at::Tensor buffer = buffer_for(parts, head_dim, options);
  const std::vector<Pair> places = views(buffer, parts, head_dim);
  for (size_t i = 0; i < places.size(); ++i) {
    places[i].k.copy_(pairs[i].k);
    places[i].v.copy_(pairs[i].v);
  }
  return buffer;
}

// A message each way that is under way, or none. Every rank starts one for every step: an exchange counts on all alike.
class Flight {
 public:
  Flight() = default;
  Flight(Group& group, const at::Tensor& send, int to, const at::Tensor& receive, int from) : received_(receive) {
    std::vector<Message> sends, receives;
    if (send.numel() > 0) sends.push_back({send, to});
    if (receive.numel() > 0) receives.push_back({receive, from});
    pending_ = group.start_exchange(sends, receives);
  }
  [[nodiscard]] at::Tensor wait() {
    pending_.wait();
    return std::move(received_);
  }

 private:
  at::Tensor received_;
  Pending pending_;
};

// The keys and values that others compute with, step by step: those of the next step are on their way.
class KeyExchange {
 public:
  KeyExchange(const at::Tensor& k, const at::Tensor& v, const SequencePlan& plan, Group& group)
      : k_(k), v_(v), plan_(plan), group_(group) {
    start(1);
  }

  // Those of step `step`, which are called for in rising order: what plan.steps[step].receive says.
  [[nodiscard]] std::vector<Pair> keys(size_t step) {
    const std::vector<Keys>& parts = plan_.steps[step].receive;
    if (step == 0) return own(parts);
    const at::Tensor received = flight_.wait();
    start(step + 1);
    return views(received, parts, k_.size(2));
  }

 private:
  void start(size_t step) {
    if (step >= plan_.steps.size()) return;
    const SequenceStep& s = plan_.steps[step];
    const at::Tensor send = packed(s.send, own(s.send), k_.size(2), k_.options());
    flight_ = Flight(group_, send, s.to, buffer_for(s.receive, k_.size(2), k_.options()), s.from);
  }

  // Of this rank's tokens.
  [[nodiscard]] std::vector<Pair> own(const std::vector<Keys>& parts) const {
    std::vector<Pair> pairs;
    for (const Keys& keys : parts) pairs.push_back(pair_of(k_, v_, keys));
    return pairs;
  }

  const at::Tensor &k_, &v_;
  const SequencePlan& plan_;
  Group& group_;
  Flight flight_;
};

}  // namespace

ops::AttentionResult sequence_attention_forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                                const SequencePlan& plan, Group& group, ops::AttentionBackend backend) {
  KeyExchange exchange(k, v, plan, group);
  ops::AttentionResult result = ops::attention_forward(q, k, v, plan.local, backend);
  struct Sum {
    at::Tensor q, out, lse;  // of a slot's queries: [rows, heads, D]; [heads, rows, D]; [heads, rows], a view
  };
  std::vector<Sum> sums;
  for (const Queries& queries : plan.queries) {
    sums.push_back({part_of(q, queries.rows, queries.heads),
                    widened(part_of(result.out, queries.rows, queries.heads).transpose(0, 1)),
                    part_of(result.lse, queries.heads, queries.rows)});
  }
  for (size_t step = 0; step < plan.steps.size(); ++step) {
    const std::vector<Pair> parts = exchange.keys(step);
    for (const Rectangle& rectangle : plan.steps[step].compute) {
      const Sum& sum = sums[rectangle.slot];
      const Pair& keys = parts[rectangle.key];
      const ops::AttentionResult more = ops::attention_block_forward(sum.q, keys.k, keys.v, backend);
      ops::join_softmax(sum.out, sum.lse, more.lse);
      sum.out.addcmul_(more.out.transpose(0, 1).to(sum.out.scalar_type()), (more.lse - sum.lse).exp_().unsqueeze(-1));
    }
  }
  for (size_t slot = 0; slot < sums.size(); ++slot)
    part_of(result.out, plan.queries[slot].rows, plan.queries[slot].heads).copy_(sums[slot].out.transpose(0, 1));
  return result;
}

void sequence_attention_backward(const at::Tensor& dout, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                 const ops::AttentionResult& saved, const SequencePlan& plan, Group& group,
                                 const at::Tensor& dq, const at::Tensor& dk, const at::Tensor& dv,
                                 ops::AttentionBackend backend) {
  KeyExchange exchange(k, v, plan, group);
  ops::attention_backward(dout, q, k, v, saved, plan.local, dq, dk, dv, backend);
  const int64_t head_dim = k.size(2);
  std::vector<at::Tensor> dq_sums;  // of every slot, as its queries
  for (const Queries& queries : plan.queries) dq_sums.push_back(widened(part_of(dq, queries.rows, queries.heads)));
  std::vector<Pair> lent_sums;  // of every slot, as its keys; a KV head may be in two slots
  for (const Keys& keys : plan.lent) lent_sums.push_back(zeros_for(pair_of(dk, dv, keys)));
  // Adds the gradients of keys that another rank (or this one) computed with.
  const auto add = [&](const std::vector<Keys>& parts, const std::vector<Pair>& gradients) {
    for (size_t i = 0; i < parts.size(); ++i) {
      lent_sums[parts[i].slot].k.add_(gradients[i].k);
      lent_sums[parts[i].slot].v.add_(gradients[i].v);
    }
  };
  Flight returning;  // of the step before
  const auto collect = [&](size_t step) {
    const std::vector<Keys>& parts = plan.steps[step].send;
    add(parts, views(returning.wait(), parts, head_dim));
  };
  for (size_t step = 0; step < plan.steps.size(); ++step) {
    const SequenceStep& s = plan.steps[step];
    const std::vector<Pair> parts = exchange.keys(step);
    std::vector<Pair> gradients;
    for (const Pair& part : parts) gradients.push_back(zeros_for(part));
    for (const Rectangle& rectangle : s.compute) {
      const Queries& queries = plan.queries[rectangle.slot];
      const Pair &keys = parts[rectangle.key], &gradient = gradients[rectangle.key];
      ops::attention_block_backward(
          part_of(dout, queries.rows, queries.heads), part_of(q, queries.rows, queries.heads), keys.k, keys.v,
          {part_of(saved.out, queries.rows, queries.heads), part_of(saved.lse, queries.heads, queries.rows)},
          dq_sums[rectangle.slot], gradient.k, gradient.v, backend);
    }
    if (step == 0) {
      add(s.receive, gradients);
      continue;
    }
    const at::Tensor back = packed(s.receive, gradients, head_dim, k.options());
    if (step > 1) collect(step - 1);
    returning = Flight(group, back, s.from, buffer_for(s.send, head_dim, k.options()), s.to);
  }
  if (plan.steps.size() > 1) collect(plan.steps.size() - 1);
  for (size_t slot = 0; slot < plan.queries.size(); ++slot) {
    part_of(dq, plan.queries[slot].rows, plan.queries[slot].heads).copy_(dq_sums[slot]);
    const Pair own = pair_of(dk, dv, plan.lent[slot]);
    own.k.add_(lent_sums[slot].k);
    own.v.add_(lent_sums[slot].v);
  }
}

}  // namespace longlora::dist

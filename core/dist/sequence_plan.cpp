#include "core/dist/sequence_plan.h"

#include <algorithm>

#include "core/base/error.h"
#include "core/dist/group.h"

namespace longlora::dist {
namespace {

using Pieces = std::vector<Range>;
using Sections = std::vector<ops::HeadSection>;

// The segment that a token is in.
Range segment_of(int64_t token, const std::vector<int64_t>& boundaries) {
  const auto next = std::upper_bound(boundaries.begin(), boundaries.end(), token);
  return {*(next - 1), *next};
}

// Tokens of piece `p`, as rows.
Range rows_of(const Pieces& pieces, size_t p, const Range& tokens) {
  int64_t row = 0;
  for (size_t before = 0; before < p; ++before) row += pieces[before].size();
  return {row + tokens.begin - pieces[p].begin, row + tokens.end - pieces[p].begin};
}

// Every segment cut to the pieces, in rows.
std::vector<int64_t> clip(const std::vector<int64_t>& boundaries, const Pieces& pieces) {
  std::vector<int64_t> rows = {0};
  for (const Range& piece : pieces) {
    const int64_t row = rows.back();
    for (auto at = std::upper_bound(boundaries.begin(), boundaries.end(), piece.begin); *at < piece.end; ++at)
      rows.push_back(row + *at - piece.begin);
    rows.push_back(row + piece.size());
  }
  return rows;
}

// The keys of every slot that later pieces attend to: of a piece those whose segment goes on behind it.
std::vector<Keys> lent_by(const Sections& sections, const Pieces& owner) {
  std::vector<Keys> lent;
  for (size_t p = 0; p < owner.size(); ++p) {
    for (const ops::HeadSection& section : sections) {
      const Range last = segment_of(owner[p].end - 1, section.boundaries);
      const int64_t begin = last.end > owner[p].end ? std::max(last.begin, owner[p].begin) : owner[p].end;
      lent.push_back(
          {.rows = rows_of(owner, p, {begin, owner[p].end}), .kv_heads = section.kv_heads, .slot = lent.size()});
    }
  }
  return lent;
}

struct Loan {
  std::vector<Keys> keys;
  std::vector<Rectangle> rectangles;
};

// What the queries of `reader` need of the keys of `owner`.
Loan loan(const Sections& sections, const Pieces& reader, const Pieces& owner) {
  Loan result;
  for (const Keys& keys : lent_by(sections, owner)) {
    if (keys.rows.size() == 0) continue;
    const size_t section = keys.slot % sections.size();
    const int64_t end = owner[keys.slot / sections.size()].end;
    const int64_t segment_end = segment_of(end, sections[section].boundaries).end;
    bool read = false;
    for (size_t r = 0; r < reader.size(); ++r) {
      if (reader[r].begin < end || reader[r].begin >= segment_end) continue;
      result.rectangles.push_back({.slot = r * sections.size() + section, .key = result.keys.size()});
      read = true;
    }
    if (read) result.keys.push_back(keys);
  }
  return result;
}

// How many places on the furthest rank is that needs something of another, the same seen from every rank.
int reach(const Sections& sections, Layout layout, int64_t tokens, int size) {
  if (layout == Layout::zigzag) return size - 1;
  const int64_t each = tokens / size, larger = tokens % size;  // as share_of() does it
  const auto rank_of = [&](int64_t token) {
    const int64_t in_larger = larger * (each + 1);
    return token < in_larger ? token / (each + 1) : larger + (token - in_larger) / each;
  };
  int64_t furthest = 0;
  for (const ops::HeadSection& section : sections) {
    const std::vector<int64_t>& cut = section.boundaries;
    for (size_t i = 0; i + 1 < cut.size(); ++i)
      furthest = std::max(furthest, rank_of(cut[i + 1] - 1) - rank_of(cut[i]));
  }
  return static_cast<int>(furthest);
}

}  // namespace

std::vector<Range> pieces_of(Layout layout, int64_t tokens, int rank, int size) {
  if (layout == Layout::contiguous) return {share_of(tokens, rank, size)};
  return {share_of(tokens, rank, 2 * size), share_of(tokens, 2 * size - 1 - rank, 2 * size)};
}

int64_t numbers(const std::vector<Keys>& message) {
  int64_t sum = 0;
  for (const Keys& keys : message) sum += 2 * keys.numbers();
  return sum;
}

int64_t SequencePlan::sent_forward(int64_t head_dim) const {
  int64_t sum = 0;
  for (size_t k = 1; k < steps.size(); ++k) sum += numbers(steps[k].send);
  return sum * head_dim;
}

int64_t SequencePlan::sent_backward(int64_t head_dim) const {
  int64_t sum = 0;
  for (size_t k = 1; k < steps.size(); ++k) sum += numbers(steps[k].send) + numbers(steps[k].receive);
  return sum * head_dim;
}

SequencePlan plan_sequence(const ops::GroupPlan& plan, Layout layout, int rank, int size) {
  if (plan.window > 0) fail("a sequence with a sliding window is not shared out over ranks");
  if (plan.tokens < 2 * size) fail("{} tokens are too few for {} ranks", plan.tokens, size);
  const Sections sections = head_sections(plan);
  const auto pieces = [&](int of) { return pieces_of(layout, plan.tokens, of, size); };
  SequencePlan result;
  result.pieces = pieces(rank);
  const Pieces& mine = result.pieces;
  const std::vector<int64_t> plain = clip(plan.plain, mine);
  result.local = {.tokens = plain.back(),
                  .heads = plan.heads,
                  .kv_heads = plan.kv_heads,
                  .plain_heads = plan.plain_heads,
                  .plain = plain,
                  .shifted = clip(plan.shifted, mine)};
  for (size_t p = 0; p < mine.size(); ++p) {
    for (const ops::HeadSection& section : sections) {
      const Range segment = segment_of(mine[p].begin, section.boundaries);
      const bool reaches_back = segment.begin < mine[p].begin;
      const Range tokens = {mine[p].begin, reaches_back ? std::min(segment.end, mine[p].end) : mine[p].begin};
      result.queries.push_back({.rows = rows_of(mine, p, tokens), .heads = section.heads});
    }
  }
  result.lent = lent_by(sections, mine);
  const int last = reach(sections, layout, plan.tokens, size);
  for (int k = 0; k <= last; ++k) {
    const int to = (rank + k) % size, from = (rank + size - k) % size;
    Loan in = loan(sections, mine, pieces(from)), out = loan(sections, pieces(to), mine);
    result.steps.push_back({.to = to,
                            .from = from,
                            .send = std::move(out.keys),
                            .receive = std::move(in.keys),
                            .compute = std::move(in.rectangles)});
  }
  return result;
}

}  // namespace longlora::dist

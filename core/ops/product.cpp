#include "core/ops/product.h"

#include <algorithm>

#include "core/base/error.h"
#include "core/ops/cpu_kernels.h"

namespace longlora::ops {
namespace {

constexpr int64_t kBlockElements = int64_t{4} << 20;
constexpr const char* kNames[] = {"native", "float32-tiles"};

bool is_16_bit(at::ScalarType type) {
  return type == at::kBFloat16 || type == at::kHalf;
}

// Memory for one tile after the other; a tile lies densely in it.
class TileMemory {
 public:
  explicit TileMemory(int64_t elements) : memory_(at::empty({elements}, at::kFloat)) {}
  [[nodiscard]] at::Tensor tile(int64_t rows, int64_t columns) const {
    return memory_.narrow(0, 0, rows * columns).view({rows, columns});
  }
  // A float32 copy of `part`, transposed where `part` is, so that the copy reads and writes along the rows.
  [[nodiscard]] at::Tensor converted(const at::Tensor& part) const {
    if (part.stride(1) != 1 && part.stride(0) == 1) return converted(part.t()).t();
    at::Tensor to = tile(part.size(0), part.size(1));
    to.copy_(part);
    return to;
  }

 private:
  at::Tensor memory_;
};

int64_t deepest(std::initializer_list<Factors> factors) {
  int64_t k = 1;
  for (const Factors& f : factors) k = std::max(k, f.a.size(1));
  return k;
}

// out = scale * sum_i a_i b_i + bias, or with `add` on top of what is there.
void in_tiles(const at::Tensor& out, std::initializer_list<Factors> factors, const at::Tensor& bias, bool add,
              double scale) {
  const int64_t m = out.size(0), n = out.size(1), depth = std::min(kProductTile, deepest(factors));
  const int64_t rows = std::min(kProductTile, m), columns = std::min(kProductTile, n);
  const bool in_place = out.scalar_type() == at::kFloat && scale == 1;
  const bool kept = factors.size() == 1 && factors.begin()->a.size(1) <= depth;  // one tile of b serves all rows
  const TileMemory a_memory(rows * depth), b_memory(depth * columns), sums(in_place ? 0 : rows * columns);
  for (int64_t column = 0; column < n; column += columns) {
    const int64_t width = std::min(columns, n - column);
    at::Tensor b;
    for (int64_t row = 0; row < m; row += rows) {
      const int64_t height = std::min(rows, m - row);
      const at::Tensor to = out.narrow(0, row, height).narrow(1, column, width);
      at::Tensor sum = in_place ? to : sums.tile(height, width);
      bool begun = in_place && add;
      if (bias.defined()) {
        sum.copy_(bias.narrow(0, column, width).expand({height, width}));
        begun = true;
      }
      for (const Factors& f : factors) {
        for (int64_t from = 0; from < f.a.size(1); from += depth) {
          const int64_t count = std::min(depth, f.a.size(1) - from);
          const at::Tensor a = a_memory.converted(f.a.narrow(0, row, height).narrow(1, from, count));
          if (row == 0 || !kept) b = b_memory.converted(f.b.narrow(0, from, count).narrow(1, column, width));
          if (begun)
            sum.addmm_(a, b);
          else
            at::mm_out(sum, a, b);
          begun = true;
        }
      }
      if (!begun) sum.zero_();  // nothing to sum over
      if (in_place) continue;
      if (scale != 1) sum.mul_(scale);
      if (add)
        to.add_(sum);
      else
        to.copy_(sum);
    }
  }
}

// Tiles serve 16-bit types on the CPU.
bool takes_tiles(const at::Tensor& a, ProductBackend backend) {
  return backend == ProductBackend::float32_tiles && a.is_cpu() && is_16_bit(a.scalar_type());
}

// One token: LibTorch's matrix-vector product reads each weight once, in any dtype. Not for gradients, which are float32.
bool is_vector(const at::Tensor& a) {
  return a.size(0) == 1;
}

}  // namespace

const char* to_string(ProductBackend backend) {
  return kNames[static_cast<size_t>(backend)];
}

const char* in_words(ProductBackend backend) {
  return backend == ProductBackend::native ? "LibTorch's products" : "products in float32 tiles";
}

std::optional<ProductBackend> parse_product(const std::string& name) {
  for (const ProductBackend backend : {ProductBackend::native, ProductBackend::float32_tiles})
    if (name == to_string(backend)) return backend;
  return std::nullopt;
}

ProductBackend default_product(at::ScalarType type, const at::Device& device) {
  if (!device.is_cpu() || !is_16_bit(type)) return ProductBackend::native;
  return type == at::kBFloat16 && cpu_kernels().bfloat16_units ? ProductBackend::native : ProductBackend::float32_tiles;
}

void product_into(const at::Tensor& out, std::initializer_list<Factors> factors, ProductBackend backend,
                  const at::Tensor& bias) {
  if (takes_tiles(factors.begin()->a, backend) && !is_vector(factors.begin()->a))
    return in_tiles(out, factors, bias, false, 1);
  at::Tensor to = out;
  const Factors* f = factors.begin();
  if (bias.defined())
    at::addmm_out(to, bias, f->a, f->b);
  else
    at::mm_out(to, f->a, f->b);
  for (++f; f != factors.end(); ++f) to.addmm_(f->a, f->b);
}

at::Tensor product(const at::Tensor& a, const at::Tensor& b, ProductBackend backend) {
  if (!takes_tiles(a, backend) || is_vector(a)) return at::mm(a, b);
  at::Tensor out = at::empty({a.size(0), b.size(1)}, a.options());
  in_tiles(out, {{a, b}}, {}, false, 1);
  return out;
}

void product_add(const at::Tensor& sum, const at::Tensor& a, const at::Tensor& b, ProductBackend backend,
                 double scale) {
  if (takes_tiles(a, backend)) return in_tiles(sum, {{a, b}}, {}, true, scale);
  if (sum.scalar_type() == a.scalar_type()) {
    sum.addmm_(a, b, 1, scale);
    return;
  }
  // In blocks of rows on the CPU: a head's product is a whole matrix of its size, and oneDNN copies `a` turned.
  const int64_t rows =
      a.is_cpu() ? std::max(kProductTile, kBlockElements / std::max<int64_t>(1, sum.size(1))) : a.size(0);
  for (int64_t row = 0; row < sum.size(0); row += rows) {
    const int64_t count = std::min(rows, sum.size(0) - row);
    sum.narrow(0, row, count).add_(at::mm(a.narrow(0, row, count), b), scale);
  }
}

}  // namespace longlora::ops

#include "core/model/compute.h"

#include <charconv>

#include "core/base/error.h"
#include "core/base/log.h"

namespace longlora::model {
namespace {

// bfloat16 must be faster by this much: it rounds more, and two measurements of one rate differ by some percent.
constexpr double kClearlyFaster = 1.25;

Compute fastest(const at::Device& device, const std::function<bool(at::ScalarType)>& fits) {
  const Compute narrow = {at::kBFloat16, ops::choose_product(at::kBFloat16, device)};
  if (!device.is_cpu()) return narrow;
  const Compute wide = {at::kFloat, ops::choose_product(at::kFloat, device)};
  if (faster_dtype(narrow.product, wide.product) == at::kBFloat16) return narrow;
  if (fits(at::kFloat)) return wide;
  log::info("float32 would be at least as fast here, but the model does not fit in memory in it: auto is bfloat16");
  return narrow;
}

}  // namespace

at::ScalarType faster_dtype(const ops::ProductChoice& bfloat16, const ops::ProductChoice& float32) {
  return bfloat16.flops > kClearlyFaster * float32.flops ? at::kBFloat16 : at::kFloat;
}

at::ScalarType stored_dtype(const std::string& name) {
  return name == "float64" ? at::kFloat : parse_dtype(name);
}

Compute choose_compute(const std::string& asked, const std::string& stored, const at::Device& device,
                       const std::function<bool(at::ScalarType)>& fits) {
  if (asked == "auto") return fastest(device, fits);
  const at::ScalarType dtype = asked == "stored" ? stored_dtype(stored) : parse_dtype(asked);
  return {dtype, ops::choose_product(dtype, device)};
}

std::string describe(const Compute& compute) {
  std::string text = fmt::format("{}, {}", name_of(compute.dtype), ops::in_words(compute.product.backend));
  if (compute.product.flops > 0) text += fmt::format(" ({:.0f} GFLOP/s measured)", compute.product.flops / 1e9);
  return text;
}

std::string to_text(const Compute& compute) {
  return fmt::format("{} {} {:.0f}", name_of(compute.dtype), ops::to_string(compute.product.backend),
                     compute.product.flops);
}

Compute compute_of_text(const std::string& text) {
  const size_t first = text.find(' '), second = text.find(' ', first + 1);
  const auto backend = ops::parse_product(text.substr(first + 1, second - first - 1));
  double flops = 0;
  if (second != text.npos) std::from_chars(text.data() + second + 1, text.data() + text.size(), flops);
  if (!backend)
    input_error("state.json: compute is '{}', which this version does not know; resume with the version that wrote it",
                text);
  return {parse_dtype(text.substr(0, first)), {*backend, flops}};
}

}  // namespace longlora::model

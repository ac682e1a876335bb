#include "core/eval/heatmap.h"

#include <fmt/format.h>
#include <algorithm>
#include <array>
#include <cmath>

#include "core/base/markup.h"

namespace longlora::eval {
namespace {

constexpr int kLeft = 112, kTop = 74, kBottom = 62, kRight = 92, kLeast = 460;
constexpr std::array<std::array<int, 3>, 3> kColours = {{{0xF0, 0x49, 0x6E}, {0xEB, 0xB8, 0x39}, {0x0C, 0xD7, 0x9F}}};

// 512, 8k, 32k, 100000: thousands of 1024 where that is exact.
std::string length_label(int64_t length) {
  return length >= 1024 && length % 1024 == 0 ? fmt::format("{}k", length / 1024) : fmt::format("{}", length);
}

}  // namespace

std::string heat_colour(double score) {
  const double at = std::clamp(score, 0.0, 1.0) * 2;
  const auto low = static_cast<size_t>(std::min(1.0, std::floor(at)));
  const double share = at - static_cast<double>(low);
  std::array<int, 3> mixed{};
  for (size_t i = 0; i < 3; ++i)
    mixed[i] = static_cast<int>(std::lround(kColours[low][i] + share * (kColours[low + 1][i] - kColours[low][i])));
  return fmt::format("#{:02x}{:02x}{:02x}", mixed[0], mixed[1], mixed[2]);
}

std::string heatmap_svg(const GridTable& table, const std::string& title, const std::string& subtitle) {
  const auto columns = static_cast<int>(table.lengths.size()), rows = static_cast<int>(table.rows.size());
  const int cell_width = std::clamp(760 / std::max(1, columns), 24, 96), cell_height = rows == 1 ? 56 : 34;
  const int right = kLeft + columns * cell_width, bottom = kTop + rows * cell_height;
  const int width = std::max(kLeast, right + kRight), height = std::max(bottom, kTop + 120) + kBottom;
  const bool numbers = cell_width >= 34;
  std::string svg = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0} {1}\" width=\"{0}\" height=\"{1}\" role=\"img\" "
      "aria-label=\"{2}\">\n"
      "<style>text{{font:13px system-ui,-apple-system,\"Segoe UI\",Roboto,sans-serif;fill:#5d656e}}"
      ".title{{font-size:17px;font-weight:600;fill:#1c2024}}.cell{{fill:#1c2024}}"
      "@media (prefers-color-scheme:dark){{text{{fill:#9aa4af}}.title{{fill:#e7eaee}}}}</style>\n",
      width, height, escape_markup(title));
  svg += fmt::format("<text class=\"title\" x=\"24\" y=\"30\">{}</text>\n<text x=\"24\" y=\"52\">{}</text>\n",
                     escape_markup(title), escape_markup(subtitle));
  for (int r = 0; r < rows; ++r) {
    const int y = kTop + r * cell_height;
    svg += fmt::format("<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\n", kLeft - 10, y + cell_height / 2 + 5,
                       escape_markup(table.rows[static_cast<size_t>(r)]));
    for (int c = 0; c < columns; ++c) {
      const double score = table.score[static_cast<size_t>(r)][static_cast<size_t>(c)];
      const int x = kLeft + c * cell_width;
      if (std::isnan(score)) {
        svg += fmt::format(
            "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" rx=\"3\" fill=\"#9aa4af\" "
            "fill-opacity=\"0.2\"/>\n",
            x + 1, y + 1, cell_width - 2, cell_height - 2);
        continue;
      }
      svg += fmt::format(
          "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" rx=\"3\" fill=\"{}\"><title>{} tokens, {}: "
          "{:.2f}</title></rect>\n",
          x + 1, y + 1, cell_width - 2, cell_height - 2, heat_colour(score), table.lengths[static_cast<size_t>(c)],
          escape_markup(table.rows[static_cast<size_t>(r)]), score);
      if (numbers)
        svg += fmt::format("<text class=\"cell\" x=\"{}\" y=\"{}\" text-anchor=\"middle\">{:.2f}</text>\n",
                           x + cell_width / 2, y + cell_height / 2 + 5, score);
    }
  }
  const int every = (44 + cell_width - 1) / cell_width;  // labels must not run into each other
  for (int c = 0; c < columns; c += every) {
    svg += fmt::format("<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n",
                       kLeft + c * cell_width + cell_width / 2, bottom + 20,
                       length_label(table.lengths[static_cast<size_t>(c)]));
  }
  svg += fmt::format("<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">context in tokens</text>\n", (kLeft + right) / 2,
                     bottom + 44);
  if (rows > 1)
    svg += fmt::format("<text transform=\"translate(22 {}) rotate(-90)\" text-anchor=\"middle\">depth</text>\n",
                       (kTop + bottom) / 2);
  for (int i = 0; i <= 10; ++i) {  // the scale, 1 at the top
    svg += fmt::format("<rect x=\"{}\" y=\"{}\" width=\"16\" height=\"10\" fill=\"{}\"/>\n", right + 24, kTop + i * 10,
                       heat_colour(1 - i / 10.0));
  }
  svg += fmt::format("<text x=\"{0}\" y=\"{1}\">1</text>\n<text x=\"{0}\" y=\"{2}\">0</text>\n</svg>\n", right + 46,
                     kTop + 11, kTop + 110);
  return svg;
}

}  // namespace longlora::eval

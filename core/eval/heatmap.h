// The grid as a picture: lengths to the right, depths downward, red over yellow to green where it works. One SVG file
// without anything from outside; its text follows the reader's light or dark setting.
#pragma once
#include <string>

#include "core/eval/grid.h"

namespace longlora::eval {

[[nodiscard]] std::string heatmap_svg(const GridTable& table, const std::string& title, const std::string& subtitle);

// The colour of a score between 0 and 1, "#rrggbb": red, yellow at a half, green.
[[nodiscard]] std::string heat_colour(double score);

}  // namespace longlora::eval

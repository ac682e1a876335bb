// One HTML page of runs and evaluations, complete in itself: curves, tables, heatmaps as inline SVG, no script, nothing from
// the network; light and dark.
#pragma once
#include <string>

#include "core/eval/report_input.h"

namespace longlora::eval {

[[nodiscard]] std::string report_page(const ReportInput& input);

}  // namespace longlora::eval

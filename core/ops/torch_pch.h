// Precompiled header of the parts with torch: the tensor library alone (no autograd, no nn).
#pragma once
#include <ATen/ATen.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

// Which implementation of ByteScan this machine runs.
#pragma once

#include <span>
#include <string_view>

#include "scan/byte_scan.h"

namespace spherequant {

// Those that this machine can run, the fastest first; the portable one is always the last.
std::span<const ByteScan* const> available_levels();

}  // namespace spherequant

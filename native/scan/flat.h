// Scans of all blocks of a layout.
#pragma once

#include <cstddef>
#include <span>

#include "scan/query.h"

namespace spherequant {

// Searches all blocks for each query, with up to `threads` threads.
void scan_flat(std::span<Query* const> queries, const Part& part, const ByteScan* scan,
               std::size_t threads, Scratch& scratch);

}  // namespace spherequant

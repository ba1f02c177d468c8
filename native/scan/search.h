// Exact top-k over layouts.
//
// The score of an item with codes b is the float32 sum ((lut[0, b_0] + lut[1, b_1]) + ...), added
// in the order m = 0..M-1. Higher scores come first; of equal scores, the lower id. Every
// path below gives these results to the bit: bounds only decide which items are scored.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

#include "scan/byte_scan.h"
#include "scan/layout.h"

namespace spherequant {

// A layout, the names of its items, and which of them may be found.
struct Part {
  const Layout* layout;
  const std::int64_t* ids;       // of each position, ascending; null where the position is the id
  const std::uint64_t* allowed;  // one bit a slot, or null where every item may be found
};

// How a bucketed layout is read: as the query's bounds advise, or one way always.
enum class Route { kAutomatic, kFlat, kBuckets };

struct SearchOptions {
  std::size_t k;
  float min_score = -std::numeric_limits<float>::infinity();  // what scores less is left out
  std::size_t threads = 1;
  Route route = Route::kAutomatic;
  const ByteScan* scan = nullptr;  // null: every item is scored in float
};

// Requires finite tables lut[Q, M, K]; all layouts of the same M and K, no id in two of them.
// `exclude` holds an id for each query that is not to be found, or is null. Writes scores[Q, k] and
// ids[Q, k], -inf and -1 past the end, and to visited[Q] how many places for codes were read.
void search(std::span<const Part> parts, const float* lut_QMK, std::size_t n_queries,
            const std::int64_t* exclude, const SearchOptions& options, float* scores_Qk,
            std::int64_t* ids_Qk, std::uint64_t* visited_Q);

}  // namespace spherequant

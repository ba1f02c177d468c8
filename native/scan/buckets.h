// Searches of bucketed layouts, best bucket first.
#pragma once

#include "scan/query.h"

namespace spherequant {

// For a layout whose buckets are lists of items with one code.
void search_lists(Query& query, const Part& part);

// Searches bucket by bucket. False if that would cost more than scanning all; the query then knows
// a threshold, and no items of this part.
bool search_buckets(Query& query, const Part& part, const SearchOptions& options, Scratch& scratch);

}  // namespace spherequant

// Searches of bucketed layouts, best bucket first.
#pragma once

#include "scan/query.h"

namespace spherequant {

// For a layout whose buckets are lists of items with one code.
void search_lists(Query& query, const Part& part);

// Searches bucket by bucket, with up to `threads` threads. False if that would cost more than
// scanning all in the company of so many queries, itself included; the query then knows a threshold,
// and no items of this part.
bool search_buckets(Query& query, const Part& part, const SearchOptions& options,
                    std::size_t company, std::size_t threads, Scratch& scratch);

}  // namespace spherequant

#include "scan/search.h"

#include <algorithm>
#include <vector>

#include "scan/buckets.h"
#include "scan/flat.h"
#include "threads.h"

namespace spherequant {
namespace {

constexpr std::size_t kGroupQueries = 64;  // that pass together over what they read

// Searches the parts for a group of queries, with up to `threads` threads.
void search_group(std::span<Query> queries, std::span<const Part> parts,
                  const SearchOptions& options, std::size_t threads, Scratch& scratch) {
  std::vector<Query*> flat;
  for (const Part& part : parts) {
    const Layout& layout = *part.layout;
    flat.clear();
    for (Query& query : queries) {
      if (layout.lists() && options.route != Route::kFlat) {
        search_lists(query, part);
      } else if (!layout.bucketed() || options.route == Route::kFlat ||
                 !search_buckets(query, part, options, queries.size(), threads, scratch)) {
        flat.push_back(&query);
      }
    }
    // If fewer than were counted on share what is read, buckets may be cheaper for them after all.
    const std::size_t company = flat.size();
    if (layout.bucketed() && options.route != Route::kFlat && 2 * company <= queries.size()) {
      std::erase_if(flat, [&](Query* query) {
        return search_buckets(*query, part, options, company, threads, scratch);
      });
    }
    scan_flat(flat, part, options.scan, threads, scratch);
  }
}

void write(Best& best, std::size_t k, float* scores, std::int64_t* ids) {
  const std::vector<Found>& found = best.sorted();
  for (std::size_t i = 0; i < k; ++i) {
    scores[i] = i < found.size() ? found[i].score : kNoThreshold;
    ids[i] = i < found.size() ? found[i].id : -1;
  }
}

}  // namespace

void search(std::span<const Part> parts, const float* lut_QMK, std::size_t n_queries,
            const std::int64_t* exclude, const SearchOptions& options, float* scores_Qk,
            std::int64_t* ids_Qk, std::uint64_t* visited_Q) {
  if (n_queries == 0) return;
  const std::size_t m = parts.empty() ? 1 : parts[0].layout->n_codebooks();
  const std::size_t k = parts.empty() ? 1 : parts[0].layout->n_codewords();
  const std::size_t threads = std::max<std::size_t>(1, options.threads);
  const std::size_t group =
      std::min(kGroupQueries, std::max<std::size_t>(1, (n_queries + threads - 1) / threads));
  const std::size_t groups = (n_queries + group - 1) / group;
  std::vector<Scratch> scratch(std::min(threads, groups), Scratch(m));
  for_each_task(groups, threads, [&](std::size_t g, std::size_t thread) {
    const std::size_t first = g * group;
    const std::size_t last = std::min(n_queries, first + group);
    std::vector<Query> queries;
    queries.reserve(last - first);
    for (std::size_t q = first; q < last; ++q) {
      queries.emplace_back(lut_QMK + q * m * k, m, k, options, exclude == nullptr ? -1 : exclude[q]);
    }
    search_group(queries, parts, options, std::max<std::size_t>(1, threads / groups),
                 scratch[thread]);
    for (std::size_t q = first; q < last; ++q) {
      write(queries[q - first].best, options.k, scores_Qk + q * options.k,
            ids_Qk + q * options.k);
      visited_Q[q] = queries[q - first].visited;
    }
  });
}

}  // namespace spherequant

#include "scan/flat.h"

#include <algorithm>
#include <atomic>
#include <utility>
#include <vector>

#include "threads.h"

namespace spherequant {
namespace {

// A threshold is first sought in this many blocks, spread over a layout that has more by far.
constexpr std::size_t kSampleBlocks = 256;
constexpr std::size_t kLeastStride = 8;

bool sampled(const Layout& layout) { return layout.n_blocks() >= kSampleBlocks * kLeastStride; }

// Up to kQueriesAtOnce queries whose tables of groups are ready.
void scan_together(std::span<Query* const> queries, const Part& part, const ByteScan* scan,
                   const Run& run, std::size_t first, Scratch& scratch) {
  const std::uint8_t* tables[kQueriesAtOnce] = {};
  std::uint64_t* lanes[kQueriesAtOnce] = {};
  for (std::size_t q = 0; q < queries.size(); ++q) {
    tables[q] = queries[q]->groups();
    lanes[q] = scratch.lanes[q].data();
  }
  scan->groups(run, tables, queries.size(), lanes);
  Candidates* found = scratch.found.data();
  for (std::size_t q = 0; q < queries.size(); ++q) {
    const std::size_t size = allowed_lanes(part, first, run.count, lanes[q], found);
    queries[q]->note_groups(run.count, size);
    queries[q]->search(part, first, run.blocks.sifted, found, size);
  }
}

// Blocks first .. first + count - 1, at most a chunk, for each query. The first queries read them from
// memory, the others from a cache.
void scan_run(std::span<Query* const> queries, const Part& part, const ByteScan* scan,
              std::size_t first, std::size_t count, Scratch& scratch) {
  const std::size_t m = part.layout->n_codebooks();
  Run run{{part.layout->block(first), m, m}, count, 0, true};
  Query* together[kQueriesAtOnce];
  std::size_t size = 0;
  for (Query* query : queries) {
    const Query::Reach reach = query->prepare();
    if (reach == Query::Reach::kNothing) continue;
    query->visited += count * kBlock;
    if (reach == Query::Reach::kCandidates && query->groups_pay()) {
      together[size++] = query;
      if (size < kQueriesAtOnce) continue;
      scan_together({together, size}, part, scan, run, first, scratch);
      size = 0;
    } else {
      Candidates* found = scratch.found.data();
      query->search(part, first, m, found, allowed_lanes(part, first, count, nullptr, found));
    }
    run.cold = false;
  }
  if (size > 0) scan_together({together, size}, part, scan, run, first, scratch);
}

// Finds a threshold that k items are known to reach, from blocks spread over the layout. Items may
// lie ordered by class: the first ones tell little about the others.
void sample(Query& query, const Part& part, Scratch& scratch) {
  const std::size_t stride = part.layout->n_blocks() / kSampleBlocks;
  Candidates* found = scratch.found.data();
  Best kept = query.best;
  for (std::size_t done = 0, run = 2; done < kSampleBlocks; done += run, run = done) {
    for (std::size_t i = 0; i < run; ++i) {
      allowed_lanes(part, (done + i) * stride, 1, nullptr, found + i);
      found[i].block = static_cast<std::uint32_t>((done + i) * stride);
    }
    query.search(part, 0, part.layout->n_codebooks(), found, run);
    query.best.settle();
  }
  kept.raise(query.best.threshold());
  query.best = std::move(kept);
  query.informed = true;
}

// Blocks first .. last - 1 on one thread. Without a sample the first runs are short and double, so
// that the threshold of what was seen so far is never far behind.
void scan_range(std::span<Query* const> queries, const Part& part, const ByteScan* scan,
                std::size_t first, std::size_t last, Scratch& scratch) {
  const std::size_t most = chunk_blocks(part.layout->n_codebooks());
  std::size_t run = sampled(*part.layout) ? most : 2;
  for (std::size_t b = first; b < last; b += std::exchange(run, std::min(most, 2 * run))) {
    scan_run(queries, part, scan, b, std::min(run, last - b), scratch);
    if (run == most) continue;
    for (Query* query : queries) query->best.settle();
  }
}

// Each thread takes a slice of the blocks.
void scan_sliced(std::span<Query* const> queries, const Part& part, const ByteScan* scan,
                 std::size_t slices) {
  const std::size_t blocks = part.layout->n_blocks();
  std::vector<std::atomic<float>> shared(queries.size());
  for (std::atomic<float>& threshold : shared) threshold = kNoThreshold;
  std::vector<std::vector<Query>> copies(slices);
  for (auto& slice : copies) {
    for (std::size_t q = 0; q < queries.size(); ++q) slice.push_back(queries[q]->slice(&shared[q]));
  }
  std::vector<Scratch> scratch(slices, Scratch(part.layout->n_codebooks()));
  for_each_task(slices, slices, [&](std::size_t s, std::size_t) {
    std::vector<Query*> mine;
    for (Query& query : copies[s]) mine.push_back(&query);
    scan_range(mine, part, scan, blocks * s / slices, blocks * (s + 1) / slices, scratch[s]);
  });
  for (std::vector<Query>& slice : copies) {
    for (std::size_t q = 0; q < queries.size(); ++q) queries[q]->take(slice[q]);
  }
}

}  // namespace

void scan_flat(std::span<Query* const> queries, const Part& part, const ByteScan* scan,
               std::size_t threads, Scratch& scratch) {
  if (queries.empty()) return;
  const Layout& layout = *part.layout;
  for (Query* query : queries) {
    query->enter(layout);
    if (sampled(layout) && !query->informed) sample(*query, part, scratch);
  }
  const std::size_t blocks = layout.n_blocks();
  const std::size_t slices = std::min(threads, blocks / chunk_blocks(layout.n_codebooks()) + 1);
  if (slices > 1) {
    scan_sliced(queries, part, scan, slices);
  } else {
    scan_range(queries, part, scan, 0, blocks, scratch);
  }
}

}  // namespace spherequant

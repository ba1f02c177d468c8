#include "scan/search.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cmath>
#include <mutex>
#include <queue>
#include <vector>

#include "scan/best.h"
#include "scan/byte_tables.h"
#include "threads.h"

namespace spherequant {
namespace {

constexpr float kNoThreshold = -std::numeric_limits<float>::infinity();
constexpr std::size_t kMaxCodebooks = 16;
constexpr std::size_t kMaxCodewords = 256;

// Codes that stay in a core's cache while the queries of a group pass over them.
constexpr std::size_t kChunkBytes = std::size_t{128} << 10;
constexpr std::size_t kGroupQueries = 64;
// A threshold is first sought in this many blocks, spread over the layout.
constexpr std::size_t kSampleBlocks = 256;
// Tables are made anew when the largest deficit has shrunk by this much.
constexpr double kShrunk = 0.95;
// Sums of larger entries might overflow: no bound holds then.
constexpr double kLargestMagnitude = 1e37;

struct alignas(64) ByteTables {
  std::uint8_t entry[kMaxCodebooks * kTableSize];
};

// A query on its way through the parts.
class Query {
 public:
  Query(const float* lut_MK, std::size_t m, std::size_t k, const SearchOptions& options,
        std::int64_t exclude)
      : best(options.k, options.min_score),
        lut_(lut_MK),
        m_(m),
        k_(k),
        scan_(options.scan),
        excluded_(exclude),
        extremes_(extremes_of(lut_MK, m, k)),
        bounded_(extremes_.magnitude < kLargestMagnitude) {}

  const float* lut() const { return lut_; }
  const TableExtremes& extremes() const { return extremes_; }
  const std::uint8_t* tables() const { return tables_.entry; }
  // Whether float scores keep within the bounds: not where their sums may overflow.
  bool bounded() const { return bounded_; }

  // A copy that searches a slice of what this query searches, and shares thresholds with the
  // copies for the other slices.
  Query slice(std::atomic<float>* shared) const {
    Query copy = *this;
    copy.best.restart();
    copy.visited = 0;
    copy.shared_ = shared;
    return copy;
  }

  // What the threshold allows now.
  enum class Reach { kNothing, kCandidates, kEverything };
  Reach prepare() {
    if (shared_ != nullptr) share();
    const float threshold = best.threshold();
    if (!bounded_ || scan_ == nullptr || threshold == kNoThreshold) return Reach::kEverything;
    const double largest = largest_deficit(extremes_, m_, threshold);
    if (largest < 0.0) return Reach::kNothing;
    if (largest < kShrunk * filled_for_ || filled_for_ < 0.0) {
      fill_tables(lut_, m_, k_, extremes_, largest, tables_.entry);
      filled_for_ = largest;
    }
    return Reach::kCandidates;
  }

  // Scores items of a block in float.
  void examine(const Part& part, std::size_t b, std::uint64_t lanes) {
    const Layout& layout = *part.layout;
    if (part.allowed != nullptr) {
      lanes &= part.allowed[b];
    } else if ((b + 1) * kBlock > layout.size()) {
      lanes &= (std::uint64_t{1} << layout.size() % kBlock) - 1;
    }
    const std::uint8_t* block = layout.block(b);
    for (; lanes != 0; lanes &= lanes - 1) {
      const auto lane = static_cast<std::size_t>(std::countr_zero(lanes));
      const float score = score_of(block + lane);
      if (score < best.threshold()) continue;
      offer(part, b * kBlock + lane, score);
    }
  }

  bool offer(const Part& part, std::size_t slot, float score) {
    const std::size_t position = part.layout->position(slot);
    const std::int64_t id =
        part.ids == nullptr ? static_cast<std::int64_t>(position) : part.ids[position];
    return id == excluded_ || best.offer(score, id);
  }

  Best best;
  std::uint64_t visited = 0;

 private:
  // k items that reach the highest threshold of all slices have been found, in one of them.
  void share() {
    const float mine = best.threshold();
    float known = shared_->load(std::memory_order_relaxed);
    while (known < mine && !shared_->compare_exchange_weak(known, mine)) {
    }
    best.raise(known);
  }

  float score_of(const std::uint8_t* code) const {
    float score = lut_[code[0]];
    for (std::size_t j = 1; j < m_; ++j) score += lut_[j * k_ + code[j * kBlock]];
    return score;
  }

  const float* lut_;
  std::size_t m_, k_;
  const ByteScan* scan_;
  std::int64_t excluded_;
  TableExtremes extremes_;
  bool bounded_;
  std::atomic<float>* shared_ = nullptr;
  double filled_for_ = -1.0;
  ByteTables tables_;
};

std::size_t chunk_blocks(std::size_t m) { return std::max<std::size_t>(16, kChunkBytes / (m * kBlock)); }

// A bucket of a layout, and a score that none of its items exceeds.
struct Bucket {
  float bound;
  std::size_t begin;  // its first slot
  std::size_t end;    // behind its last
  std::size_t first_codeword, second_codeword;
};

// What a thread needs beside its queries.
struct Scratch {
  std::vector<Candidates> found[2];
  std::vector<Bucket> buckets;

  explicit Scratch(std::size_t m) {
    for (auto& list : found) list.resize(chunk_blocks(m));
  }
};

using Reach = Query::Reach;

// Blocks first .. first + count - 1 for one query; count is at most a chunk.
void scan_run(Query& query, const Part& part, const ByteScan* scan, std::size_t first,
              std::size_t count, bool cold, Scratch& scratch) {
  const Reach reach = query.prepare();
  if (reach == Reach::kNothing) return;
  query.visited += count * kBlock;
  if (reach == Reach::kEverything) {
    for (std::size_t b = first; b < first + count; ++b) query.examine(part, b, ~std::uint64_t{0});
    return;
  }
  Candidates* found = scratch.found[0].data();
  const Blocks blocks{part.layout->block(first), count, part.layout->n_codebooks(), cold};
  const std::size_t size = scan->one(blocks, query.tables(), found);
  for (std::size_t i = 0; i < size; ++i) query.examine(part, first + found[i].block, found[i].lanes);
}

// The same for two queries at once, where both have tables.
void scan_run(Query& one, Query& two, const Part& part, const ByteScan* scan, std::size_t first,
              std::size_t count, bool cold, Scratch& scratch) {
  if (one.prepare() != Reach::kCandidates || two.prepare() != Reach::kCandidates) {
    scan_run(one, part, scan, first, count, cold, scratch);
    scan_run(two, part, scan, first, count, cold, scratch);
    return;
  }
  Query* const queries[2] = {&one, &two};
  const std::uint8_t* const tables[2] = {one.tables(), two.tables()};
  Candidates* const found[2] = {scratch.found[0].data(), scratch.found[1].data()};
  std::size_t sizes[2];
  const Blocks blocks{part.layout->block(first), count, part.layout->n_codebooks(), cold};
  scan->two(blocks, tables, found, sizes);
  for (std::size_t q = 0; q < 2; ++q) {
    queries[q]->visited += count * kBlock;
    for (std::size_t i = 0; i < sizes[q]; ++i) {
      queries[q]->examine(part, first + found[q][i].block, found[q][i].lanes);
    }
  }
}

// Blocks first .. last - 1 for one query, in runs that double, so that the threshold of the items
// seen so far is never far behind. Returns where it stopped: at `last` or at the end of a chunk.
std::size_t scan_growing(Query& query, const Part& part, const ByteScan* scan, std::size_t first,
                         std::size_t last, Scratch& scratch) {
  const std::size_t most = chunk_blocks(part.layout->n_codebooks());
  std::size_t b = first;
  for (std::size_t run = 2; b < last && run < most; run *= 2) {
    const std::size_t count = std::min(run, last - b);
    scan_run(query, part, scan, b, count, true, scratch);
    query.best.settle();
    b += count;
  }
  return b;
}

// Finds a threshold that k items are known to reach, from blocks spread over the layout. Items may
// lie ordered by class: the first ones tell little about the others.
void sample(Query& query, const Part& part, const ByteScan* scan, Scratch& scratch) {
  const std::size_t stride = part.layout->n_blocks() / kSampleBlocks;
  if (stride < 8 || scan == nullptr) return;
  Query probe = query;
  for (std::size_t i = 0, next = 2; i < kSampleBlocks; ++i) {
    if (i == next) {
      probe.best.settle();
      next *= 2;
    }
    scan_run(probe, part, scan, i * stride, 1, false, scratch);
  }
  probe.best.settle();
  query.best.raise(probe.best.threshold());
}

// All blocks first .. last - 1, for a group of queries.
void scan_flat(std::span<Query* const> queries, const Part& part, const ByteScan* scan,
               std::size_t first, std::size_t last, Scratch& scratch) {
  const std::size_t step = chunk_blocks(part.layout->n_codebooks());
  std::size_t begun = first;
  for (Query* query : queries) begun = scan_growing(*query, part, scan, first, last, scratch);
  for (std::size_t b = begun; b < last; b += step) {
    const std::size_t count = std::min(step, last - b);
    std::size_t q = 0;
    for (; q + 1 < queries.size(); q += 2) {
      scan_run(*queries[q], *queries[q + 1], part, scan, b, count, q == 0, scratch);
    }
    if (q < queries.size()) scan_run(*queries[q], part, scan, b, count, q == 0, scratch);
  }
}


// The buckets of a layout as one query sees them, best first.
//
// The bound of bucket (a, b) is lut[first, a] + lut[second, b] + the best entries of all other
// codebooks: no item of it has a higher exact score. Float scores may exceed it by the rounding of
// M additions, and the bound itself is rounded twice; the margin added covers both.
class BucketOrder {
 public:
  BucketOrder(const Query& query, const Layout& layout) : layout_(layout), row_(layout.row()) {
    const std::size_t m = layout.n_codebooks();
    const std::size_t k = layout.n_codewords();
    const BucketBooks books = layout.books();
    const TableExtremes& extremes = query.extremes();
    double rest = static_cast<double>(m + 4) * 0x1p-23 * extremes.magnitude;
    for (std::size_t j = 0; j < m; ++j) {
      if (j != books.first && j != books.second) rest += extremes.best[j];
    }
    const float* first = query.lut() + books.first * k;
    const float* second = query.lut() + books.second * k;
    for (std::size_t c = 0; c < k; ++c) {
      outer_[c] = {static_cast<float>(static_cast<double>(first[c]) + rest), c};
    }
    for (std::size_t c = 0; c < row_; ++c) inner_[c] = {row_ == 1 ? 0.0F : second[c], c};
    const auto higher = [](const Entry& a, const Entry& b) { return a.value > b.value; };
    std::sort(outer_.begin(), outer_.begin() + static_cast<std::ptrdiff_t>(k), higher);
    std::sort(inner_.begin(), inner_.begin() + static_cast<std::ptrdiff_t>(row_), higher);
    push(0);
  }

  // The next bucket, by descending bounds; false when there are no more.
  bool next(Bucket& bucket) {
    if (frontier_.empty()) return false;
    const Place place = frontier_.top();
    frontier_.pop();
    bucket = at(place.i, done_[place.i]++);
    if (done_[place.i] < row_) push(place.i);
    if (done_[place.i] == 1 && place.i + 1 < layout_.n_codewords()) push(place.i + 1);
    return true;
  }

  // Calls visit(bucket) for all further buckets whose bounds reach the threshold, which may rise
  // meanwhile, in no special order, empty ones left out; stops where visit returns false.
  template <class Threshold, class Visit>
  bool rest(const Threshold& threshold, const Visit& visit) const {
    for (std::size_t i = 0; i < layout_.n_codewords(); ++i) {
      if (outer_[i].value + inner_[0].value < threshold()) return true;
      for (std::size_t j = done_[i]; j < row_; ++j) {
        const Bucket bucket = at(i, j);
        if (bucket.bound < threshold()) break;
        if (bucket.begin != bucket.end && !visit(bucket)) return false;
      }
    }
    return true;
  }

 private:
  struct Entry {
    float value;
    std::size_t codeword;
  };
  struct Place {
    float bound;
    std::size_t i;
    bool operator<(const Place& other) const { return bound < other.bound; }
  };

  Bucket at(std::size_t i, std::size_t j) const {
    const std::size_t a = outer_[i].codeword;
    const std::size_t b = inner_[j].codeword;
    return {outer_[i].value + inner_[j].value, layout_.start(a, b), layout_.end(a, b), a, b};
  }

  void push(std::size_t i) { frontier_.push({outer_[i].value + inner_[done_[i]].value, i}); }

  const Layout& layout_;
  std::size_t row_;
  std::array<Entry, kMaxCodewords> outer_, inner_;   // sorted, highest first
  std::array<std::size_t, kMaxCodewords> done_{};    // buckets of each row that were handed out
  std::priority_queue<Place> frontier_;
};

// What it costs to begin a bucket, in scanned blocks, and how much less a block costs in a flat
// scan, where queries share what they read and nothing jumps.
constexpr std::size_t kVisitBlocks = 4;
constexpr std::size_t kFlatAdvantage = 4;
// So many buckets ahead, memory is told what is wanted.
constexpr std::size_t kAhead = 4;

std::size_t visit_cost(std::size_t begin, std::size_t end) {
  return kVisitBlocks + (end - 1) / kBlock - begin / kBlock + 1;
}

// Visits the slots of one bucket.
void visit(Query& query, const Part& part, const ByteScan* scan, std::size_t begin,
           std::size_t end, Scratch& scratch) {
  const Layout& layout = *part.layout;
  const std::size_t first = begin / kBlock;
  const std::size_t last = (end - 1) / kBlock;  // blocks first .. last
  const std::uint64_t head = ~std::uint64_t{0} << begin % kBlock;
  const std::uint64_t tail = ~std::uint64_t{0} >> (kBlock - 1 - (end - 1) % kBlock);
  const auto examine = [&](std::size_t b, std::uint64_t lanes) {
    if (b == first) lanes &= head;
    if (b == last) lanes &= tail;
    query.examine(part, b, lanes);
  };
  query.visited += end - begin;
  const std::size_t step = chunk_blocks(layout.n_codebooks());
  for (std::size_t b = first; b <= last; b += step) {
    const std::size_t count = std::min(step, last + 1 - b);
    const Reach reach = query.prepare();
    if (reach == Reach::kNothing) return;
    if (reach == Reach::kEverything) {
      for (std::size_t i = b; i < b + count; ++i) examine(i, ~std::uint64_t{0});
      continue;
    }
    Candidates* found = scratch.found[0].data();
    const Blocks blocks{layout.block(b), count, layout.n_codebooks(), count > kAhead};
    const std::size_t size = scan->one(blocks, query.tables(), found);
    for (std::size_t i = 0; i < size; ++i) examine(b + found[i].block, found[i].lanes);
  }
}

// With one or two codebooks a bucket is a code: its items share one score, and come in the order of
// their ids, so that behind the first that is not good enough there is none.
void visit_list(Query& query, const Part& part, const Bucket& bucket) {
  const Layout& layout = *part.layout;
  const BucketBooks books = layout.books();
  const float* lut = query.lut();
  const std::size_t k = layout.n_codewords();
  float score = lut[books.first * k + bucket.first_codeword];
  if (books.first != books.second) {
    // The sum of two is the same in either order.
    score += lut[books.second * k + bucket.second_codeword];
  }
  for (std::size_t slot = bucket.begin; slot < bucket.end; ++slot) {
    if (part.allowed != nullptr && (part.allowed[slot / 64] >> slot % 64 & 1) == 0) continue;
    ++query.visited;
    if (!query.offer(part, slot, score)) return;
  }
}

void search_lists(Query& query, const Part& part) {
  BucketOrder order(query, *part.layout);
  Bucket bucket;
  while (order.next(bucket)) {
    if (query.bounded() && bucket.bound < query.best.threshold()) return;
    visit_list(query, part, bucket);
  }
}

void prefetch(const Layout& layout, std::size_t slot) {
  const std::uint8_t* block = layout.block(slot / kBlock);
  for (std::size_t j = 0; j < layout.n_codebooks(); ++j) __builtin_prefetch(block + j * kBlock);
}

// Searches bucket by bucket. False if that would cost more than scanning all; the query then knows
// a threshold, and no items of this part.
bool search_buckets(Query& query, const Part& part, const SearchOptions& options,
                    Scratch& scratch) {
  const Layout& layout = *part.layout;
  const bool free = options.route == Route::kBuckets;
  if (!query.bounded() || options.scan == nullptr) return false;
  const std::size_t limit = layout.n_blocks() / kFlatAdvantage;
  const Best before = query.best;
  BucketOrder order(query, layout);
  Bucket bucket;
  std::size_t cost = 0;
  std::size_t seen = 0;
  const std::size_t wanted = std::max<std::size_t>(4 * options.k, layout.size() / 1024);
  while (seen < wanted && order.next(bucket)) {
    if (bucket.bound < query.best.threshold()) return true;
    if (bucket.begin == bucket.end) continue;
    visit(query, part, options.scan, bucket.begin, bucket.end, scratch);
    query.best.settle();
    seen += bucket.end - bucket.begin;
    cost += visit_cost(bucket.begin, bucket.end);
    if (cost > limit && !free) break;
  }
  const auto threshold = [&] { return query.best.threshold(); };
  scratch.buckets.clear();
  const bool worth = order.rest(threshold, [&](const Bucket& b) {
    scratch.buckets.push_back(b);
    cost += visit_cost(b.begin, b.end);
    return free || cost <= limit;
  });
  if (!worth) {
    const float reached = query.best.threshold();
    query.best = before;
    query.best.raise(reached);
    return false;
  }
  for (std::size_t i = 0; i < scratch.buckets.size(); ++i) {
    if (i + kAhead < scratch.buckets.size()) {
      prefetch(layout, scratch.buckets[i + kAhead].begin);
    }
    const Bucket& b = scratch.buckets[i];
    if (b.bound >= query.best.threshold()) {
      visit(query, part, options.scan, b.begin, b.end, scratch);
    }
  }
  return true;
}

// A flat scan by several threads: each takes a slice of the blocks.
void scan_sliced(std::span<Query* const> queries, const Part& part, const ByteScan* scan,
                 std::size_t threads) {
  const std::size_t m = part.layout->n_codebooks();
  const std::size_t blocks = part.layout->n_blocks();
  const std::size_t slices = std::min(threads, blocks / chunk_blocks(m) + 1);
  std::vector<std::atomic<float>> shared(queries.size());
  for (std::atomic<float>& threshold : shared) threshold = kNoThreshold;
  std::vector<std::vector<Query>> copies(slices);
  for (auto& slice : copies) {
    for (std::size_t q = 0; q < queries.size(); ++q) slice.push_back(queries[q]->slice(&shared[q]));
  }
  std::vector<Scratch> scratch(slices, Scratch(m));
  for_each_task(slices, slices, [&](std::size_t s, std::size_t) {
    std::vector<Query*> mine;
    for (Query& query : copies[s]) mine.push_back(&query);
    scan_flat(mine, part, scan, blocks * s / slices, blocks * (s + 1) / slices, scratch[s]);
  });
  for (std::vector<Query>& slice : copies) {
    for (std::size_t q = 0; q < queries.size(); ++q) {
      for (const Found& found : slice[q].best.sorted()) {
        queries[q]->best.offer(found.score, found.id);
      }
      queries[q]->visited += slice[q].visited;
    }
  }
}

// Searches the parts for a group of queries. Only flat scans use more than one thread.
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
                 !search_buckets(query, part, options, scratch)) {
        sample(query, part, options.scan, scratch);
        flat.push_back(&query);
      }
    }
    if (flat.empty()) continue;
    if (threads > 1) {
      scan_sliced(flat, part, options.scan, threads);
    } else {
      scan_flat(flat, part, options.scan, 0, layout.n_blocks(), scratch);
    }
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

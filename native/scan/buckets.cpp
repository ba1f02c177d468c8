#include "scan/buckets.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <limits>
#include <queue>
#include <utility>
#include <vector>

#include "threads.h"

namespace spherequant {
namespace {

// A bucket of a layout, and a score that none of its items exceeds.
struct Bucket {
  float bound;
  std::size_t begin;  // its first slot
  std::size_t end;    // behind its last
  std::size_t first_codeword, second_codeword;
};

// What things take, in nanoseconds on one machine; only their proportions matter. A bucket has to be
// found, and its blocks' own lines are fetched from where memory did not foresee and sifted by pairs.
// In a flat scan a block is sifted by groups, and is read once for all queries.
struct Times {
  double bucket = 8.0;
  double bucket_block;  // a block of a bucket
  double flat_block;    // a block in a flat scan, for one of many queries
  double read_block;    // and for all of them together

  Times(const ByteScan& scan, std::size_t m, std::size_t sifted)
      : bucket_block(4.0 + static_cast<double>(sifted) * (2.0 + 2.0 * scan.look_up_time)),
        flat_block(static_cast<double>(m) * (0.4 + scan.look_up_time)),
        read_block(static_cast<double>(m) * 2.2) {}

  double visit(const Bucket& b) const {
    return bucket +
           bucket_block * static_cast<double>((b.end - 1) / kBlock - b.begin / kBlock + 1);
  }
  double flat(const Layout& layout, std::size_t company) const {
    return static_cast<double>(layout.n_blocks()) *
           (flat_block + read_block / static_cast<double>(company));
  }
};

// The buckets of a layout as one query sees them, best first.
//
// The bound of bucket (a, b) is lut[first, a] + lut[second, b] + the best entries of all other
// codebooks: no item of it has a higher exact score. Float scores may exceed it by the rounding of
// M additions, and the bound itself is rounded twice; the margin added covers both.
class BucketOrder {
 public:
  static constexpr std::size_t kEstimated = 512;

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
    const bool alone = books.first == books.second;
    for (std::size_t c = 0; c < row_; ++c) inner_[c] = {alone ? 0.0F : second[c], c};
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

  // About how long the further buckets take whose bounds reach the threshold, from some of them.
  double estimate_time(float threshold, const Times& times) const {
    std::array<std::size_t, kMaxCodewords> behind{};  // the last of each row that reaches it
    std::size_t count = 0;
    for (std::size_t i = 0, j = row_; i < layout_.n_codewords(); ++i) {
      while (j > 0 && outer_[i].value + inner_[j - 1].value < threshold) --j;
      behind[i] = std::max(j, done_[i]);
      count += behind[i] - done_[i];
    }
    const std::size_t stride = count / kEstimated + 1;
    double sum = 0.0;
    std::size_t skipped = 0;
    for (std::size_t i = 0; i < layout_.n_codewords(); ++i) {
      std::size_t j = done_[i] + skipped;
      for (; j < behind[i]; j += stride) {
        const Bucket bucket = at(i, j);
        if (bucket.begin != bucket.end) sum += times.visit(bucket);
      }
      skipped = j - behind[i];
    }
    return sum * static_cast<double>(stride);
  }

  // Calls visit(bucket) for all further buckets whose bounds reach the threshold, which may rise
  // meanwhile, in no special order, empty ones left out; for one of so many slices of them.
  template <class Threshold, class Visit>
  void rest(std::size_t slice, std::size_t slices, const Threshold& threshold,
            const Visit& visit) const {
    for (std::size_t i = slice; i < layout_.n_codewords(); i += slices) {
      if (outer_[i].value + inner_[0].value < threshold()) return;
      for (std::size_t j = done_[i]; j < row_; ++j) {
        const Bucket bucket = at(i, j);
        if (bucket.bound < threshold()) break;
        if (bucket.begin != bucket.end) visit(bucket);
      }
    }
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

// A bucket of this many blocks is scanned by itself; smaller ones are gathered.
constexpr std::size_t kLargeBucket = 8;

// One query's way through buckets: gathers blocks until there are enough of them to be searched.
class Visit {
 public:
  Visit(Query& query, const Part& part, const ByteScan* scan, Scratch& scratch)
      : query_(query), part_(part), scan_(scan), scratch_(scratch) {}

  void add(const Bucket& bucket) {
    const std::size_t first = bucket.begin / kBlock;
    const std::size_t count = (bucket.end - 1) / kBlock - first + 1;
    query_.visited += bucket.end - bucket.begin;
    if (count >= kLargeBucket) {
      scan_large(bucket);
      return;
    }
    Candidates* const gathered = scratch_.gathered.data() + size_;
    const std::size_t added = allowed_lanes(part_, first, count, nullptr, gathered);
    place(gathered, added, first, query_.start(deficit(bucket)));
    for (std::size_t i = 0; i < added; ++i) prefetch(gathered[i].block);
    size_ += clip(gathered, added, bucket);
    if (size_ + kLargeBucket > scratch_.gathered.size()) flush();
  }

  // Searches what was gathered.
  void flush() {
    query_.search(part_, 0, part_.layout->own_lines(), scratch_.gathered.data(), size_);
    size_ = 0;
  }

 private:
  // What the codewords that the items of a bucket share cost.
  double deficit(const Bucket& bucket) const {
    const std::size_t k = part_.layout->n_codewords();
    const BucketBooks books = part_.layout->books();
    const float* best = query_.extremes().best;
    return (double{best[books.first]} - query_.lut()[books.first * k + bucket.first_codeword]) +
           (double{best[books.second]} - query_.lut()[books.second * k + bucket.second_codeword]);
  }

  // Blocks that were counted from `first` on are counted from the first of all.
  static void place(Candidates* found, std::size_t size, std::size_t first, std::uint8_t start) {
    for (std::size_t i = 0; i < size; ++i) {
      found[i].block += static_cast<std::uint32_t>(first);
      found[i].start = start;
    }
  }

  // Takes the lanes off that belong to other buckets. Returns how many blocks are left.
  static std::size_t clip(Candidates* found, std::size_t size, const Bucket& bucket) {
    if (size == 0) return 0;
    const std::size_t last = bucket.end - 1;
    if (found[0].block == bucket.begin / kBlock) {
      found[0].lanes &= ~std::uint64_t{0} << bucket.begin % kBlock;
    }
    if (found[size - 1].block == last / kBlock) {
      found[size - 1].lanes &= ~std::uint64_t{0} >> (kBlock - 1 - last % kBlock);
    }
    return size;
  }

  // Memory is told what is wanted when the blocks that were gathered are searched.
  void prefetch(std::size_t b) const {
    const Layout& layout = *part_.layout;
    const std::uint8_t* block = layout.block(b);
    for (std::size_t j = 0; j < layout.own_lines(); ++j) {
      __builtin_prefetch(block + j * kBlock, 0, 2);
    }
  }

  // While nothing is known that items must reach, the runs are short and double.
  void scan_large(const Bucket& bucket) {
    const Layout& layout = *part_.layout;
    const std::size_t m = layout.n_codebooks();
    const std::size_t most = chunk_blocks(m);
    const std::size_t sifted = layout.own_lines();
    const std::size_t behind = (bucket.end - 1) / kBlock + 1;
    const double cost = deficit(bucket);
    Candidates* const found = scratch_.found.data();
    std::size_t run = query_.best.threshold() == kNoThreshold ? 2 : most;
    for (std::size_t b = bucket.begin / kBlock; b < behind;
         b += std::exchange(run, std::min(most, 2 * run))) {
      const std::size_t count = std::min(run, behind - b);
      const Query::Reach reach = query_.prepare();
      if (reach == Query::Reach::kNothing) return;
      const std::uint8_t start = query_.start(cost);
      std::size_t size;
      if (reach == Query::Reach::kCandidates && query_.groups_pay()) {
        const std::uint8_t* const tables = query_.groups();
        std::uint64_t* const lanes = scratch_.lanes[0].data();
        scan_->groups({{layout.block(b), m, sifted}, count, start, true}, &tables, 1, &lanes);
        size = allowed_lanes(part_, b, count, lanes, found);
        query_.note_groups(count, size);
      } else {
        size = allowed_lanes(part_, b, count, nullptr, found);
      }
      place(found, size, b, start);
      query_.search(part_, 0, sifted, found, clip(found, size, bucket));
      query_.best.settle();
    }
  }

  Query& query_;
  const Part& part_;
  const ByteScan* scan_;
  Scratch& scratch_;
  std::size_t size_ = 0;
};

// A thread is worth its start where it has so much to do, in the unit of Times.
constexpr double kWorthAThread = 50'000.0;

// Visits what is left of the order. Each thread takes a slice of it.
void visit_rest(Query& query, const Part& part, const ByteScan* scan, const BucketOrder& order,
                std::size_t slices) {
  std::atomic<float> shared = kNoThreshold;
  std::vector<Query> copies;
  for (std::size_t s = 0; s < slices; ++s) copies.push_back(query.slice(&shared));
  std::vector<Scratch> scratch(slices, Scratch(part.layout->n_codebooks()));
  for_each_task(slices, slices, [&](std::size_t s, std::size_t) {
    Visit visit(copies[s], part, scan, scratch[s]);
    order.rest(
        s, slices, [&] { return copies[s].best.threshold(); },
        [&](const Bucket& b) { visit.add(b); });
    visit.flush();
  });
  for (Query& copy : copies) query.take(copy);
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

}  // namespace

void search_lists(Query& query, const Part& part) {
  BucketOrder order(query, *part.layout);
  Bucket bucket;
  while (order.next(bucket)) {
    if (query.bounded() && bucket.bound < query.best.threshold()) return;
    visit_list(query, part, bucket);
  }
}

bool search_buckets(Query& query, const Part& part, const SearchOptions& options,
                    std::size_t company, std::size_t threads, Scratch& scratch) {
  const Layout& layout = *part.layout;
  if (!query.bounded() || options.scan == nullptr) return false;
  query.enter(layout);
  const Times times(*options.scan, layout.n_codebooks(), layout.own_lines());
  const double limit = options.route == Route::kBuckets ? std::numeric_limits<double>::infinity()
                                                        : times.flat(layout, company);
  const Best before = query.best;
  BucketOrder order(query, layout);
  Visit visit(query, part, options.scan, scratch);
  Bucket bucket;
  double time = 0.0;
  std::size_t seen = 0;
  const std::size_t wanted = std::max<std::size_t>(4 * options.k, layout.size() / 1024);
  while (seen < wanted && order.next(bucket)) {
    if (bucket.bound < query.best.threshold()) return true;
    if (bucket.begin == bucket.end) continue;
    visit.add(bucket);
    visit.flush();
    query.best.settle();
    seen += bucket.end - bucket.begin;
    time += times.visit(bucket);
    if (time > limit) break;
  }
  const double left =
      time <= limit ? order.estimate_time(query.best.threshold(), times) : 0.0;
  if (time + left > limit) {
    const float reached = query.best.threshold();
    query.best = before;
    query.best.raise(reached);
    query.informed = true;
    return false;
  }
  const std::size_t slices =
      std::min(threads, 1 + static_cast<std::size_t>(left / kWorthAThread));
  if (slices > 1) {
    visit_rest(query, part, options.scan, order, slices);
  } else {
    order.rest(
        0, 1, [&] { return query.best.threshold(); }, [&](const Bucket& b) { visit.add(b); });
    visit.flush();
  }
  return true;
}

}  // namespace spherequant

// One query on its way through the parts of a search.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "scan/best.h"
#include "scan/byte_tables.h"
#include "scan/layout.h"
#include "scan/search.h"

namespace spherequant {

inline constexpr float kNoThreshold = -std::numeric_limits<float>::infinity();

// Blocks that are scanned at a time: their codes stay in a core's cache while queries pass over them.
inline std::size_t chunk_blocks(std::size_t m) {
  constexpr std::size_t kChunkBytes = std::size_t{128} << 10;
  return std::max<std::size_t>(16, kChunkBytes / (m * kBlock));
}

// What a thread needs beside its queries: room for a chunk of blocks.
struct Scratch {
  std::vector<std::uint64_t> lanes[kQueriesAtOnce];
  std::vector<Candidates> found;
  std::vector<Candidates> gathered;  // from several buckets

  explicit Scratch(std::size_t m) : found(chunk_blocks(m)), gathered(chunk_blocks(m)) {
    for (auto& list : lanes) list.resize(chunk_blocks(m));
  }
};

// How much a stage lets through of late, to tell whether it is worth its time. Items may lie ordered
// by likeness, so that what held for some blocks says little about those that come much later: a stage
// that was left out is tried again after a while.
class Sieve {
 public:
  void note(std::size_t before, std::size_t after) {
    before_ += before;
    after_ += after;
    if (before_ < kWindow) return;
    before_ /= 2;
    after_ /= 2;
  }

  // To be asked before each run of blocks.
  bool pays() {
    if (before_ < kEnough || 2 * after_ <= before_) return true;
    if (++left_out_ == kPatience) *this = Sieve();
    return false;
  }

 private:
  static constexpr std::size_t kEnough = 64;    // blocks that tell something
  static constexpr std::size_t kWindow = 4096;  // blocks that are remembered
  static constexpr std::size_t kPatience = 8;   // runs without the stage
  std::size_t before_ = 0;
  std::size_t after_ = 0;
  std::size_t left_out_ = 0;
};

class Query {
 public:
  Query(const float* lut_MK, std::size_t m, std::size_t k, const SearchOptions& options,
        std::int64_t exclude);

  // To be called before blocks of a layout are searched.
  void enter(const Layout& layout);

  // What the threshold allows now; tables are ready where it is kCandidates.
  enum class Reach { kNothing, kCandidates, kEverything };
  Reach prepare();

  const float* lut() const { return lut_; }
  const TableExtremes& extremes() const { return extremes_; }
  const std::uint8_t* groups() const { return tables_.groups(); }
  // Whether float scores keep within the bounds: not where their sums may overflow.
  bool bounded() const { return bounded_; }
  bool groups_pay() { return by_groups_.pays(); }
  // Of `blocks`, groups left `size`.
  void note_groups(std::size_t blocks, std::size_t size) { by_groups_.note(blocks, size); }

  // A lower bound on what a deficit costs, in units of the tables.
  std::uint8_t start(double deficit) const {
    return filled_for_ < 0.0 ? 0 : tables_.start(deficit);
  }

  // Offers the items given by blocks (counted from `first`) and lanes that may be among the best.
  // The first `sifted` lines of a block are looked up; what the others cost, its `start` says. Where
  // that is not all of them, the candidates of a block are of one bucket.
  void search(const Part& part, std::size_t first, std::size_t sifted, Candidates* found,
              std::size_t size);

  // Returns whether the item may be among the best.
  bool offer(const Part& part, std::size_t slot, float score) {
    const std::size_t position = part.layout->position(slot);
    const std::int64_t id =
        part.ids == nullptr ? static_cast<std::int64_t>(position) : part.ids[position];
    return id == excluded_ || best.offer(score, id);
  }

  // A copy that searches a slice of what this query searches, and shares thresholds with the
  // copies for the other slices.
  Query slice(std::atomic<float>* shared) const;
  // Takes over what a copy found.
  void take(Query& slice);

  Best best;
  std::uint64_t visited = 0;
  bool informed = false;  // whether its threshold comes from items, and not from the caller alone

 private:
  void share();
  // One for each number of codebooks: with it known, the sum of a score is no loop.
  using Scorer = void (Query::*)(const Part&, std::size_t, const Candidates*, std::size_t, bool);
  template <std::size_t... I>
  static constexpr std::array<Scorer, sizeof...(I)> scorers(std::index_sequence<I...>);
  // `ascending`: the ids of a block's candidates ascend.
  template <std::size_t M>
  void score(const Part& part, std::size_t first, const Candidates* found, std::size_t size,
             bool ascending);

  const float* lut_;
  std::size_t m_, k_;
  const ByteScan* scan_;
  std::int64_t excluded_;
  TableExtremes extremes_;
  bool bounded_;
  std::atomic<float>* shared_ = nullptr;
  std::vector<std::uint8_t> numbering_;  // of the layout entered, none at first
  std::vector<float> numbered_;          // [M, 256]: the table by stored numbers
  std::array<std::uint8_t, kMaxCodebooks> lines_{};  // of the layout entered
  ByteTables tables_;
  double filled_for_ = -1.0;  // the largest deficit that the tables are for
  Sieve by_groups_, by_pairs_;
};

// The items of blocks first .. first + count - 1 that may be found, of those in `lanes` where it
// is given. Returns how many blocks have any; found has room for all.
std::size_t allowed_lanes(const Part& part, std::size_t first, std::size_t count,
                          const std::uint64_t* lanes, Candidates* found);

}  // namespace spherequant

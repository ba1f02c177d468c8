#include "scan/query.h"

#include <bit>
#include <cmath>

namespace spherequant {
namespace {

// Tables are made anew when the largest deficit has shrunk by this much. That takes as long as to
// score some hundred items, and where codes lie close together many more are just behind the k-th.
constexpr double kShrunk = 0.998;
// Sums of larger entries might overflow: no bound holds then.
constexpr double kLargestMagnitude = 1e37;

}  // namespace

Query::Query(const float* lut_MK, std::size_t m, std::size_t k, const SearchOptions& options,
             std::int64_t exclude)
    : best(options.k, options.min_score),
      lut_(lut_MK),
      m_(m),
      k_(k),
      scan_(options.scan),
      excluded_(exclude),
      extremes_(extremes_of(lut_MK, m, k)),
      bounded_(extremes_.magnitude < kLargestMagnitude),
      numbered_(m * kExact, kNoThreshold),
      tables_(m) {}

void Query::enter(const Layout& layout) {
  const std::vector<std::uint8_t>& numbers = layout.numbering().numbers();
  if (numbers == numbering_ && std::equal(layout.lines(), layout.lines() + m_, lines_.begin())) {
    return;
  }
  numbering_ = numbers;
  std::copy_n(layout.lines(), m_, lines_.begin());
  std::fill(numbered_.begin(), numbered_.end(), kNoThreshold);
  for (std::size_t j = 0; j < m_; ++j) {
    for (std::size_t c = 0; c < k_; ++c) {
      numbered_[j * kExact + numbers[j * k_ + c]] = lut_[j * k_ + c];
    }
  }
  filled_for_ = -1.0;
}

Query Query::slice(std::atomic<float>* shared) const {
  Query copy = *this;
  copy.best.restart();
  copy.visited = 0;
  copy.shared_ = shared;
  return copy;
}

void Query::take(Query& slice) {
  for (const Found& found : slice.best.sorted()) best.offer(found.score, found.id);
  visited += slice.visited;
}

// k items that reach the highest threshold of all slices have been found, in one of them.
void Query::share() {
  const float mine = best.threshold();
  float known = shared_->load(std::memory_order_relaxed);
  while (known < mine && !shared_->compare_exchange_weak(known, mine)) {
  }
  best.raise(known);
}

Query::Reach Query::prepare() {
  if (shared_ != nullptr) share();
  const float threshold = best.threshold();
  if (!bounded_ || scan_ == nullptr || threshold == kNoThreshold) return Reach::kEverything;
  const double largest = largest_deficit(extremes_, m_, threshold);
  if (largest < 0.0) return Reach::kNothing;
  if (largest < kShrunk * filled_for_ || filled_for_ < 0.0) {
    tables_.fill(numbered_.data(), extremes_, lines_.data(), largest, scan_->differences);
    filled_for_ = largest;
    by_groups_ = by_pairs_ = Sieve();
  }
  return Reach::kCandidates;
}

template <std::size_t... I>
constexpr std::array<Query::Scorer, sizeof...(I)> Query::scorers(std::index_sequence<I...>) {
  return {&Query::score<I + 1>...};
}

void Query::search(const Part& part, std::size_t first, std::size_t sifted, Candidates* found,
                   std::size_t size) {
  const Reach reach = prepare();
  if (reach == Reach::kNothing) return;
  if (reach == Reach::kCandidates) {
    const Blocks blocks{part.layout->block(first), m_, sifted};
    if (by_pairs_.pays()) {
      const std::size_t left = scan_->pairs(blocks, tables_.pairs(), found, size);
      by_pairs_.note(size, left);
      size = left;
    }
    size = scan_->exact(blocks, tables_.exact(), found, size);
  }
  static constexpr auto kScorers = scorers(std::make_index_sequence<kMaxCodebooks>());
  const bool ascending = sifted < m_ || part.layout->order().empty();
  (this->*kScorers[m_ - 1])(part, first, found, size, ascending);
}

template <std::size_t M>
void Query::score(const Part& part, std::size_t first, const Candidates* found, std::size_t size,
                  bool ascending) {
  std::array<std::size_t, M> lines;
  for (std::size_t j = 0; j < M; ++j) lines[j] = lines_[j] * kBlock;
  const float* const numbered = numbered_.data();
  for (std::size_t i = 0; i < size; ++i) {
    const std::size_t b = first + found[i].block;
    const std::uint8_t* block = part.layout->block(b);
    float least = best.threshold();
    for (std::uint64_t lanes = found[i].lanes; lanes != 0; lanes &= lanes - 1) {
      const auto lane = static_cast<std::size_t>(std::countr_zero(lanes));
      const std::uint8_t* code = block + lane;
      float score = numbered[code[lines[0]]];
      for (std::size_t j = 1; j < M; ++j) score += numbered[j * kExact + code[lines[j]]];
      if (!(score >= least) || offer(part, b * kBlock + lane, score)) continue;
      // It is no better than the k-th, at best by its id: nor is what scores the same behind it.
      if (ascending) least = std::nextafter(score, std::numeric_limits<float>::infinity());
    }
  }
}

std::size_t allowed_lanes(const Part& part, std::size_t first, std::size_t count,
                          const std::uint64_t* lanes, Candidates* found) {
  const Layout& layout = *part.layout;
  const std::uint64_t* allowed = part.allowed == nullptr ? nullptr : part.allowed + first;
  std::size_t size = 0;
  for (std::size_t b = 0; b < count; ++b) {
    std::uint64_t left = lanes == nullptr ? ~std::uint64_t{0} : lanes[b];
    if (allowed != nullptr) left &= allowed[b];
    found[size] = {left, static_cast<std::uint32_t>(b), 0};
    size += left != 0;
  }
  // Behind the last item a block is filled up.
  const bool part_full = (first + count) * kBlock > layout.size();
  if (part_full && size > 0 && found[size - 1].block == count - 1) {
    found[size - 1].lanes &= (std::uint64_t{1} << layout.size() % kBlock) - 1;
    size -= found[size - 1].lanes == 0;
  }
  return size;
}

}  // namespace spherequant

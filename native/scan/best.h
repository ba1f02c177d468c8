// The k best items of a search.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

namespace spherequant {

struct Found {
  float score;
  std::int64_t id;
};

// The order of results: higher scores first, of equal scores the lower id.
inline bool better(const Found& a, const Found& b) {
  return a.score > b.score || (a.score == b.score && a.id < b.id);
}

// Keeps at least the k best of what it is offered. Instead of ordering each newcomer it lets some
// more than k come together, then drops all behind the k-th at once.
class Best {
 public:
  // Items that score less than `floor` are never kept.
  Best(std::size_t k, float floor) : k_(k), bar_{floor, kLast} {}

  // Returns whether the item may be among the k best.
  bool offer(float score, std::int64_t id) {
    const Found found{score, id};
    if (!better(found, bar_)) return false;
    found_.push_back(found);
    if (found_.size() >= k_ + std::max(kCompany, k_ / 2)) drop();
    return true;
  }

  // An item can only be among the k best if it scores this much.
  float threshold() const { return bar_.score; }

  // Forgets the items, but not that there are k which score `threshold()`.
  void restart() {
    found_.clear();
    kept_ = 0;
    bar_.id = kLast;
  }

  // Another search of the same query has found k items that score at least this.
  void raise(float floor) {
    if (floor > bar_.score) bar_ = {floor, kLast};
  }

  // The k best, in order.
  const std::vector<Found>& sorted() {
    if (found_.size() > k_) drop();
    std::sort(found_.begin(), found_.end(), better);
    return found_;
  }

  // Brings the threshold about up to date: at least k items are known to reach it.
  void settle() {
    if (found_.size() > kept_ && found_.size() >= k_ + kept_ / kFew) drop();
  }

 private:
  static constexpr std::int64_t kLast = std::numeric_limits<std::int64_t>::max();
  static constexpr std::size_t kCompany = 32;
  static constexpr std::size_t kFew = 16;  // a share of newcomers below one in so many moves little

  void drop() {
    std::nth_element(found_.begin(), found_.begin() + static_cast<std::ptrdiff_t>(k_ - 1),
                     found_.end(), better);
    found_.resize(k_);
    kept_ = k_;
    if (better(found_.back(), bar_)) bar_ = found_.back();
  }

  std::size_t k_;
  Found bar_;
  std::vector<Found> found_;
  std::size_t kept_ = 0;  // by the last drop
};

}  // namespace spherequant

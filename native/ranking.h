// What measuring a ranking of the whole database takes: scores of all items, and their ties.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace spherequant {

// scores[q, n] = tables[q, 0, codes[n, 0]] + ... + tables[q, M-1, codes[n, M-1]], left to right, each
// sum rounded to float. Every code is below K.
void sum_tables(const float* tables_QMK, std::size_t q, std::size_t m, std::size_t k,
                const std::uint8_t* codes_NM, std::size_t n, float* scores_QN);

// The ties of a ranking that hold a relevant item, best first: as `Ties` of evaluation/metrics.py.
struct Ties {
  std::vector<std::int64_t> before;           // items ranked before the tie
  std::vector<std::int64_t> size;             // items in it
  std::vector<std::int64_t> relevant;         // of them relevant
  std::vector<std::int64_t> relevant_before;  // relevant items ranked before it
  bool any_tied = false;                      // whether any two items share a score
};

// Scores of all items and of the relevant ones among them, both increasing, none NaN. A relevant
// score that no item has makes a tie of size zero.
template <class Score>
Ties find_ties(const Score* scores, std::size_t n, const Score* relevant, std::size_t count);

extern template Ties find_ties(const float*, std::size_t, const float*, std::size_t);
extern template Ties find_ties(const double*, std::size_t, const double*, std::size_t);

}  // namespace spherequant

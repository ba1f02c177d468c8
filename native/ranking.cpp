#include "ranking.h"

#include <algorithm>

namespace spherequant {

void sum_tables(const float* tables_QMK, std::size_t q, std::size_t m, std::size_t k,
                const std::uint8_t* codes_NM, std::size_t n, float* scores_QN) {
  for (std::size_t query = 0; query < q; ++query) {
    const float* table = tables_QMK + query * m * k;
    float* scores = scores_QN + query * n;
    for (std::size_t item = 0; item < n; ++item) {
      const std::uint8_t* code = codes_NM + item * m;
      float sum = table[code[0]];
      for (std::size_t j = 1; j < m; ++j) sum += table[j * k + code[j]];
      scores[item] = sum;
    }
  }
}

template <class Score>
Ties find_ties(const Score* scores, std::size_t n, const Score* relevant, std::size_t count) {
  Ties ties;
  ties.any_tied = std::adjacent_find(scores, scores + n) != scores + n;
  for (auto* column : {&ties.before, &ties.size, &ties.relevant, &ties.relevant_before}) {
    column->reserve(count);
  }
  std::size_t items = n;  // not yet ranked: the best is the last of them
  std::size_t left = count;
  while (left > 0) {
    const Score score = relevant[left - 1];
    const std::size_t relevant_before = count - left;
    while (left > 0 && relevant[left - 1] == score) --left;
    while (items > 0 && scores[items - 1] > score) --items;
    const std::size_t before = n - items;
    while (items > 0 && scores[items - 1] == score) --items;
    ties.before.push_back(static_cast<std::int64_t>(before));
    ties.size.push_back(static_cast<std::int64_t>(n - items - before));
    ties.relevant.push_back(static_cast<std::int64_t>(count - left - relevant_before));
    ties.relevant_before.push_back(static_cast<std::int64_t>(relevant_before));
  }
  return ties;
}

template Ties find_ties(const float*, std::size_t, const float*, std::size_t);
template Ties find_ties(const double*, std::size_t, const double*, std::size_t);

}  // namespace spherequant

#include "scan/byte_tables.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "scan/byte_scan.h"

namespace spherequant {
namespace {

// Below this, 254 / T would overflow or lose its precision.
constexpr double kSmallestDeficit = 1e-280;
// Takes more off the factor than all roundings of a product can add.
constexpr double kRoundDown = 1.0 - 0x1p-48;

}  // namespace

TableExtremes extremes_of(const float* lut_MK, std::size_t m, std::size_t k) {
  TableExtremes extremes{};
  for (std::size_t j = 0; j < m; ++j) {
    const float* row = lut_MK + j * k;
    float best = row[0];
    float worst = row[0];
    for (std::size_t c = 1; c < k; ++c) {
      best = std::max(best, row[c]);
      worst = std::min(worst, row[c]);
    }
    extremes.best[j] = best;
    extremes.best_sum += best;
    extremes.magnitude += std::max(std::abs(best), std::abs(worst));
  }
  return extremes;
}

double largest_deficit(const TableExtremes& extremes, std::size_t m, float threshold) {
  const double rounding = static_cast<double>(m + 1) * 0x1p-23 * extremes.magnitude;
  return extremes.best_sum - static_cast<double>(threshold) + rounding;
}

void fill_tables(const float* lut_MK, std::size_t m, std::size_t k, const TableExtremes& extremes,
                 double largest, std::uint8_t* tables) {
  const bool divides = largest > kSmallestDeficit;
  const double factor = divides ? 254.0 / largest * kRoundDown : 0.0;
  for (std::size_t j = 0; j < m; ++j) {
    const float* row = lut_MK + j * k;
    std::uint8_t* table = tables + j * kTableSize;
    const double best = extremes.best[j];
    if (divides) {
      for (std::size_t c = 0; c < k; ++c) {
        const double steps = std::min(255.0, (best - static_cast<double>(row[c])) * factor);
        table[c] = static_cast<std::uint8_t>(static_cast<std::int32_t>(steps));
      }
    } else {
      for (std::size_t c = 0; c < k; ++c) {
        table[c] = best - static_cast<double>(row[c]) <= largest ? 0 : 255;
      }
    }
    std::memset(table + k, 255, kTableSize - k);
  }
}

}  // namespace spherequant

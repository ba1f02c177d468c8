#include "scan/byte_tables.h"

#include <algorithm>
#include <cmath>

#include "scan/differences.h"

namespace spherequant {
namespace {

// Below this, 254 / T would overflow or lose its precision.
constexpr double kSmallestDeficit = 1e-30;
// Takes more off than the roundings of a difference and two products in float32 can add.
constexpr double kRoundDown = 1.0 - 0x1p-20;

// entries[256] of one codebook.
void fill_exact(const float* lut, float best, double largest, std::uint8_t* entries) {
  if (largest > kSmallestDeficit) {
    const auto factor = static_cast<float>(254.0 / largest * kRoundDown);
    for (std::size_t c = 0; c < kExact; ++c) {
      const float steps = std::min(255.0F, (best - lut[c]) * factor);
      entries[c] = static_cast<std::uint8_t>(static_cast<std::int32_t>(steps));
    }
    return;
  }
  for (std::size_t c = 0; c < kExact; ++c) {
    const double deficit = static_cast<double>(best) - static_cast<double>(lut[c]);
    entries[c] = deficit <= largest ? 0 : 255;
  }
}

// entries[size] are the least of two entries `size` apart.
void fill_least(const std::uint8_t* from, std::uint8_t* entries, std::size_t size) {
  for (std::size_t c = 0; c < size; ++c) entries[c] = std::min(from[c], from[c + size]);
}

// Prepares `size` entries, of tables of `entries` each, as differences.h says.
void differ(std::uint8_t* tables, std::size_t size, std::size_t entries) {
  const std::size_t run = std::min(entries, kSigned);
  for (std::size_t start = 0; start < size; start += run) {
    for (std::size_t i = start + run; i-- > start + kPart;) tables[i] ^= tables[i - kPart];
  }
}

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

void ByteTables::fill(const float* lut, const TableExtremes& extremes, const std::uint8_t* lines,
                      double largest, bool differences) {
  largest_ = largest;
  factor_ = largest > kSmallestDeficit ? 254.0 / largest * kRoundDown : 0.0;
  std::uint8_t* const exact = lines_[0].byte;
  std::uint8_t* const pairs = exact + m_ * kExact;
  std::uint8_t* const groups = pairs + m_ * kPairs;
  for (std::size_t j = 0; j < m_; ++j) {
    const std::size_t line = lines[j];
    fill_exact(lut + j * kExact, extremes.best[j], largest, exact + line * kExact);
    fill_least(exact + line * kExact, pairs + line * kPairs, kPairs);
    fill_least(pairs + line * kPairs, groups + line * kGroups, kGroups);
  }
  if (!differences) return;
  differ(exact, m_ * kExact, kExact);
  differ(pairs, m_ * kPairs, kPairs);
  differ(groups, m_ * kGroups, kGroups);
}

std::uint8_t ByteTables::start(double deficit) const {
  if (factor_ == 0.0) return deficit <= largest_ ? 0 : 255;
  return static_cast<std::uint8_t>(std::min(255.0, deficit * factor_));
}

}  // namespace spherequant

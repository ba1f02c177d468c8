// A query's float table as bytes, for ByteScan.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "scan/byte_scan.h"

namespace spherequant {

// What the bound needs of a float table lut[m, c], M codebooks of K codewords.
struct TableExtremes {
  float best[kMaxCodebooks];  // max over c of lut[m, c]
  double best_sum;            // sum over m of best[m]
  double magnitude;           // sum over m of max over c of |lut[m, c]|
};

TableExtremes extremes_of(const float* lut_MK, std::size_t m, std::size_t k);

// The largest total deficit that an item of score `threshold` or more can have.
//
// With d_m[c] = best[m] - lut[m, c] >= 0, an item of codes b has the exact score
// sum(best) - sum_m d_m[b_m]. Its float32 score, M - 1 additions each rounded to a relative error
// of 2^-24, differs from the exact one by less than (M + 1) * 2^-23 * magnitude. So an item whose
// float32 score reaches the threshold has a total deficit of at most
//   T = best_sum - threshold + (M + 1) * 2^-23 * magnitude.
double largest_deficit(const TableExtremes& extremes, std::size_t m, float threshold);

// The tables of one query for M codebooks, of all three sizes, in the order of the lines.
class ByteTables {
 public:
  explicit ByteTables(std::size_t m) : m_(m), lines_(m * (kExact + kPairs + kGroups) / kLineSize) {}

  // Fills the tables so that no item with a total deficit of at most T adds up to 255 or more:
  // entry = floor(d * 254 / T) with the quotient rounded down, at most 255. Since floor never
  // rounds up, the entries of such an item add up to at most 254; the least of two or four entries
  // is no more than each of them. If T is too small to divide by, an entry is 0 where d <= T and 255
  // elsewhere, which holds for every T.
  //
  // lut[M, 256] by stored numbers, -inf where a number is no codeword's; lines[M]: the line of each
  // codebook in a block.
  void fill(const float* lut, const TableExtremes& extremes, const std::uint8_t* lines,
            double largest, bool differences);

  // What a sum may begin with in place of the entries of some codebooks, where an item's deficits in
  // these add up to `deficit`: floor(deficit * 254 / T), the quotient rounded down, at most 255. It is
  // no more than their part of sum_m d_m * 254 / T, as each other entry is no more than its own, so
  // that a total deficit of at most T still adds up to at most 254; too small a T is treated as above.
  // It stays a lower bound once the tables are filled for a smaller T. They must have been filled.
  std::uint8_t start(double deficit) const;

  const std::uint8_t* exact() const { return lines_[0].byte; }
  const std::uint8_t* pairs() const { return exact() + m_ * kExact; }
  const std::uint8_t* groups() const { return pairs() + m_ * kPairs; }

 private:
  static constexpr std::size_t kLineSize = 64;
  struct alignas(kLineSize) Line {
    std::uint8_t byte[kLineSize];
  };
  std::size_t m_;
  std::vector<Line> lines_;
  double largest_ = 0.0;  // T
  double factor_ = 0.0;   // 254 / T, rounded down; 0 where T is too small to divide by
};

}  // namespace spherequant

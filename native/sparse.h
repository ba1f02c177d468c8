// Inner products with rows that are mostly zeros, to the bit those of encode.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "encode/levels.h"

namespace spherequant {

// Rows y[k, D] without their zeros: sliced ELLPACK, sorted (SELL-C-sigma: Kreutzer et al., SIAM
// Journal on Scientific Computing 36(5), 2014, with C = 16 and sigma = 256). Of each 256 rows, those
// with the most nonzeros come first; slices of 16 keep, step by step, one value and its dimension for
// each of their rows. Shorter rows are filled up with zeros at dimension 0.
class SparseColumns {
 public:
  static constexpr std::size_t kMaxDim = 1 << 16;  // dimensions are numbered in 16 bits

  // Requires 1 <= D <= kMaxDim.
  SparseColumns(const float* y_KD, std::size_t k, std::size_t d);

  // Whether inner_products gives the bits of Columns::inner_products for these rows, all finite.
  //
  // Leaving out a term of zero changes at most the sign of a sum that is zero: -0 + 0 is 0. A sum
  // starts at 0, and becomes -0 only when a result that is not zero is rounded to it. Every
  // intermediate result is a multiple of 2^-149, and so never rounded to zero, when the products
  // are: the least of them, |x| |y| >= 2^-101, with two factors of 24 bits, is.
  bool exact(const float* x_ND, std::size_t n) const;

  // out[n, k] as Columns::inner_products defines it, without the terms that are zero.
  void inner_products(const float* x_ND, float* out_NK, std::size_t n, std::size_t threads,
                      const EncodingLevel& level = *encoding_levels().front()) const;

  std::size_t size() const { return k_; }
  std::size_t dim() const { return d_; }

 private:
  std::size_t k_, d_;
  float least_;                        // the least magnitude that is not zero
  std::vector<std::uint32_t> order_;   // [k]: which row of y is at each place of the slices
  std::vector<std::size_t> starts_;    // [slices + 1]: first step of each slice
  std::vector<Line> values_;           // [steps]
  std::vector<std::uint16_t> dims_;    // [steps, 16]
};

}  // namespace spherequant

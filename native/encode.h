// Inner products and additive quantization in float32, in one stated order of operations.
//
// Sums run over independent columns at once, so every level, whatever the width of its registers,
// computes the same bits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "encode/levels.h"

namespace spherequant {

// Rows y[k, D] laid out for their inner products with many others.
class Columns {
 public:
  Columns(const float* y_KD, std::size_t k, std::size_t d);

  // out[n, k] = sum over d = 0..D-1, in this order, of x[n, d] * y[k, d]; the sum starts at 0, and
  // is rounded to float32 once for each d, when the exact product has been added. Row-major arrays.
  void inner_products(const float* x_ND, float* out_NK, std::size_t n, std::size_t threads,
                      const EncodingLevel& level = *encoding_levels().front()) const;

  std::size_t size() const { return k_; }
  std::size_t dim() const { return d_; }

 private:
  std::size_t k_, d_;
  std::vector<Line> columns_;
};

// What encoding needs to know of one set of codebooks, computed once and then only read.
//
// With <,> the inner product above and C_m[c] codeword c of codebook m:
//   norm[m, c]         = <C_m[c], C_m[c]>
//   pair[m, c, m', c'] = 2 * <C_m[c], C_m'[c']>
// The last axis (c or c') is padded from K to a multiple of 64; padded norms are +inf, so that no
// padded codeword is ever chosen. Memory: about 4 (M K)^2 bytes (64 MiB for M = 16, K = 256).
class EncodingTables {
 public:
  static constexpr std::size_t kMaxCodebooks = 16;
  static constexpr std::size_t kMaxCodewords = 256;
  static constexpr std::size_t kMaxBeam = 4096;

  // Requires 1 <= M <= 16, 1 <= K <= 256, D >= 1.
  EncodingTables(const float* codebooks_MKD, std::size_t m, std::size_t k, std::size_t d,
                 std::size_t threads, const EncodingLevel& level = *encoding_levels().front());

  // codes[n, m] for each row x[n] alone: beam search over m = 0..M-1, then iterated conditional
  // modes (ICM), at most `icm_rounds` rounds from each of the `icm_starts` best codes found. Costs
  // are squared errors less ||x||^2, which is the same for all codes of a row. In this order of
  // operations:
  //
  //   a[m, c] = norm[m, c] - 2 * <x, C_m[c]>
  //
  //   Beam search. The beam starts as one empty prefix of cost 0. At m, prefix b of cost g_b and
  //   codes b_0..b_{m-1} goes on to codeword c at the cost
  //     g_b + (((a[m, c] + pair[0, b_0, m, c]) + pair[1, b_1, m, c]) + ...)
  //   and the `beam` best of all (b, c) stay, by lower cost, then lower b, then lower c.
  //
  //   ICM, on each of the `icm_starts` best codes of the last beam (all of them, where it has
  //   fewer). For m = 0..M-1: the codeword of least cost (then of lowest number) by
  //     ((a[m, c] + pair[0, b_0, m, c]) + pair[1, b_1, m, c]) + ...   over all m' != m, ascending
  //   replaces b_m if its cost is strictly lower. A round that changes nothing is the last.
  //
  //   Of the codes so reached, that of the lowest cost, computed as the beam search computes it,
  //   is the row's; of equal ones that with the better start.
  //
  // Requires 1 <= beam <= kMaxBeam, 1 <= icm_starts, threads >= 1. More starts than the beam are
  // as many.
  void encode(const float* x_ND, std::uint8_t* codes_NM, std::size_t n, Effort effort,
              std::size_t threads) const;

  std::size_t n_codebooks() const { return m_; }
  std::size_t dim() const { return d_; }

 private:
  const EncodingLevel& level_;
  std::size_t m_, k_, d_;
  std::size_t lines_;             // lines that hold K codewords
  std::vector<Line> columns_;     // [M, lines_, D]: codebooks transposed
  std::vector<Line> norm_;        // [M, lines_]
  std::vector<Line> pair_;        // [M, M, K, lines_]: pair[m, c, m', c'] at [m', m, c, c']
};

}  // namespace spherequant

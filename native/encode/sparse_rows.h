// Inner products with sparse rows, for the files of one level each (see levels.h).
//
// One row of x at a time: a register holds the sums of several rows of y, and the values of x are
// gathered. Many rows of x: a register holds the sums of several rows of x with one row of y.
#pragma once

#include "encode/lanes.h"
#include "encode/levels.h"

namespace spherequant {
namespace {

// So many rows of x are quicker one by one than as the lanes of a register.
constexpr std::size_t kFewRows = W / 4;

// x[dims[l]] for W lanes.
inline Lanes gathered(const float* x, const std::uint16_t* dims) {
#if defined(__AVX512F__)
  const __m256i narrow = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(dims));
  // Into zeros, with a mask: GCC warns of the plain one that it starts from nothing.
  return _mm512_mask_i32gather_ps(_mm512_setzero_ps(), 0xFFFF,
                                  _mm512_maskz_cvtepu16_epi32(0xFFFF, narrow), x, sizeof(float));
#elif defined(__AVX2__) && defined(__FMA__)
  const __m128i narrow = _mm_loadu_si128(reinterpret_cast<const __m128i*>(dims));
  return _mm256_i32gather_ps(x, _mm256_cvtepu16_epi32(narrow), sizeof(float));
#else
  Lanes values;
  for (std::size_t l = 0; l < W; ++l) values[l] = x[dims[l]];
  return values;
#endif
}

// One row of x with all of y.
inline void multiply_sparse_row(const SparseView& y, const float* x, float* out) {
  for (std::size_t first = 0; first < y.k; first += kLine) {
    const std::size_t slice = first / kLine;
    Lanes sum[kLanesOfLine] = {};
    for (std::size_t step = y.starts[slice]; step < y.starts[slice + 1]; ++step) {
      for (std::size_t i = 0; i < kLanesOfLine; ++i) {
        const Lanes of_x = gathered(x, y.dims + step * kLine + i * W);
        sum[i] = fused(of_x, load(y.values[step].value + i * W), sum[i]);
      }
    }
    Line sums;
    for (std::size_t i = 0; i < kLanesOfLine; ++i) store(sums.value + i * W, sum[i]);
    const std::size_t rows = y.k - first < kLine ? y.k - first : kLine;
    for (std::size_t l = 0; l < rows; ++l) out[y.order[first + l]] = sums.value[l];
  }
}

// R registers of rows of x with rows [window, last) of y: x_DR is transposed, out[rows of y, R] too.
template <std::size_t R>
inline void multiply_sparse_tile(const SparseView& y, std::size_t window, std::size_t last,
                                 const float* x_DR, float* out) {
  for (std::size_t first = window; first < last; first += kLine) {
    const std::size_t begin = y.starts[first / kLine];
    const std::size_t end = y.starts[first / kLine + 1];
    // Two rows of y at a time, so that one addition need not wait for another.
    for (std::size_t l = 0; l < kLine && first + l < last; l += 2) {
      Lanes sum[2][R] = {};
      for (std::size_t step = begin; step < end; ++step) {
        for (std::size_t i = 0; i < 2; ++i) {
          const float value = y.values[step].value[l + i];
          const float* x = x_DR + y.dims[step * kLine + l + i] * (R * W);
          for (std::size_t r = 0; r < R; ++r) {
            sum[i][r] = fused(value, load(x + r * W), sum[i][r]);
          }
        }
      }
      for (std::size_t i = 0; i < 2 && first + l + i < last; ++i) {
        float* to = out + (y.order[first + l + i] - window) * (R * W);
        for (std::size_t r = 0; r < R; ++r) store(to + r * W, sum[i][r]);
      }
    }
  }
}

// The numbers 0..N-1 as a pack: nothing of the standard library is used here (see levels.h).
template <std::size_t... L>
struct Indices {};
template <std::size_t N, std::size_t... L>
struct Counted : Counted<N - 1, N - 1, L...> {};
template <std::size_t... L>
struct Counted<0, L...> {
  using Type = Indices<L...>;
};

// Where lane L comes from, of the W lanes of a and then those of b.
template <std::size_t S, bool kHigh>
constexpr int place(std::size_t l) {
  const bool set = (l & S) != 0;
  return static_cast<int>(kHigh ? (set ? W + l : l + S) : (set ? W + l - S : l));
}

// One half of exchanging the lanes with bit S of row a for those without it of row b, S below.
template <std::size_t S, bool kHigh, std::size_t... L>
inline Lanes exchanged(Lanes a, Lanes b, Indices<L...>) {
#if !defined(__clang__) && __GNUC__ < 12
  typedef int Places __attribute__((vector_size(sizeof(Lanes))));
  return __builtin_shuffle(a, b, Places{place<S, kHigh>(L)...});
#else
  return __builtin_shufflevector(a, b, place<S, kHigh>(L)...);
#endif
}

template <std::size_t S>
inline void exchange(Lanes (&rows)[W]) {
  using All = typename Counted<W>::Type;
  for (std::size_t i = 0; i < W; ++i) {
    if ((i & S) != 0) continue;
    const Lanes a = rows[i];
    const Lanes b = rows[i + S];
    rows[i] = exchanged<S, false>(a, b, All{});
    rows[i + S] = exchanged<S, true>(a, b, All{});
  }
}

// to[j, i] = from[i, j] for i < rows, j < columns; `stride`s are between rows. Where `to` has more
// columns than `from` rows, they become zero.
void transpose(const float* from, std::size_t from_stride, std::size_t rows, std::size_t columns,
               float* to, std::size_t to_stride, std::size_t to_columns) {
  for (std::size_t i = 0; i < to_columns; i += W) {
    for (std::size_t j = 0; j < columns; j += W) {
      if (i + W <= rows && j + W <= columns) {
        Lanes block[W];
        for (std::size_t l = 0; l < W; ++l) block[l] = load(from + (i + l) * from_stride + j);
        exchange<1>(block);
        exchange<2>(block);
        if constexpr (W > 4) exchange<4>(block);
        if constexpr (W > 8) exchange<8>(block);
        for (std::size_t l = 0; l < W; ++l) store(to + (j + l) * to_stride + i, block[l]);
        continue;
      }
      for (std::size_t a = i; a < i + W && a < to_columns; ++a) {
        for (std::size_t b = j; b < j + W && b < columns; ++b) {
          to[b * to_stride + a] = a < rows ? from[a * from_stride + b] : 0.0F;
        }
      }
    }
  }
}

template <std::size_t R>
inline void multiply_sparse_rows(const SparseView& y, const float* x, float* x_DR, float* out,
                                 std::size_t rows) {
  float* sums = x_DR + y.d * (R * W);
  transpose(x, y.d, rows, y.d, x_DR, R * W, R * W);
  for (std::size_t window = 0; window < y.k; window += kSparseWindow) {
    const std::size_t last = window + kSparseWindow < y.k ? window + kSparseWindow : y.k;
    multiply_sparse_tile<R>(y, window, last, x_DR, sums);
    transpose(sums, R * W, last - window, rows, out + window, y.k, last - window);
  }
}

void multiply_sparse(const SparseView& y, const float* x, Line* scratch, float* out,
                     std::size_t rows) {
  for (std::size_t first = 0; first < rows;) {
    const std::size_t left = rows - first;
    const float* from = x + first * y.d;
    float* to = out + first * y.k;
    if (left <= kFewRows) {
      multiply_sparse_row(y, from, to);
      first += 1;
    } else if (left > 2 * W) {
      multiply_sparse_rows<4>(y, from, scratch->value, to, left < 4 * W ? left : 4 * W);
      first += 4 * W;
    } else if (left > W) {
      multiply_sparse_rows<2>(y, from, scratch->value, to, left);
      first += 2 * W;
    } else {
      multiply_sparse_rows<1>(y, from, scratch->value, to, left);
      first += W;
    }
  }
}

}  // namespace
}  // namespace spherequant

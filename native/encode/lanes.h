// A vector register of the instruction set that a file is compiled for: W floats.
//
// For the files of one level each (see levels.h): nothing here has external linkage.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__AVX512F__) || (defined(__AVX2__) && defined(__FMA__))
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "encode/line.h"

namespace spherequant {
namespace {

// GCC and Clang: arithmetic and comparisons of these are by element.
#if defined(__AVX512F__)
constexpr std::size_t W = 16;
#elif defined(__AVX2__) && defined(__FMA__)
constexpr std::size_t W = 8;
#else
constexpr std::size_t W = 4;
#endif
typedef float Lanes __attribute__((vector_size(W * sizeof(float))));

constexpr std::size_t kLanesOfLine = kLine / W;

inline Lanes load(const float* values) {
  Lanes lanes;
  __builtin_memcpy(&lanes, values, sizeof(lanes));
  return lanes;
}
inline void store(float* values, Lanes lanes) { __builtin_memcpy(values, &lanes, sizeof(lanes)); }

// Of a number and what is not one, the second: as `a < b ? a : b`.
inline Lanes least_of(Lanes a, Lanes b) { return a < b ? a : b; }

#if !defined(__AVX512F__) && !(defined(__AVX2__) && defined(__FMA__)) && !defined(__aarch64__)
// x * y + sum, rounded once. The product is exact in double; the double sum is rounded to odd (what
// was lost moves an even last bit), after which rounding to float is rounding of the exact value.
inline float fused(float x, float y, float sum) {
  const double product = static_cast<double>(x) * y;
  double total = product + sum;
  const double added = total - product;
  const double lost = (product - (total - added)) + (sum - added);
  std::int64_t bits;
  __builtin_memcpy(&bits, &total, sizeof(bits));
  if ((lost < 0 || lost > 0) && (bits & 1) == 0) bits += (lost > 0) == (total > 0) ? 1 : -1;
  __builtin_memcpy(&total, &bits, sizeof(bits));
  return static_cast<float>(total);
}
#endif

// sum + x * y, rounded once.
inline Lanes fused(float x, Lanes y, Lanes sum) {
#if defined(__AVX512F__)
  return _mm512_fmadd_ps(_mm512_set1_ps(x), y, sum);
#elif defined(__AVX2__) && defined(__FMA__)
  return _mm256_fmadd_ps(_mm256_set1_ps(x), y, sum);
#elif defined(__aarch64__)
  return vfmaq_n_f32(sum, y, x);
#else
  for (std::size_t l = 0; l < W; ++l) sum[l] = fused(x, y[l], sum[l]);
  return sum;
#endif
}

// The same of W values of x.
inline Lanes fused(Lanes x, Lanes y, Lanes sum) {
#if defined(__AVX512F__)
  return _mm512_fmadd_ps(x, y, sum);
#elif defined(__AVX2__) && defined(__FMA__)
  return _mm256_fmadd_ps(x, y, sum);
#elif defined(__aarch64__)
  return vfmaq_f32(sum, y, x);
#else
  for (std::size_t l = 0; l < W; ++l) sum[l] = fused(x[l], y[l], sum[l]);
  return sum;
#endif
}

// Bit l says whether lane l is at most `limit`.
inline std::uint32_t at_most(Lanes values, float limit) {
#if defined(__AVX512F__)
  return _mm512_cmp_ps_mask(values, _mm512_set1_ps(limit), _CMP_LE_OQ);
#elif defined(__AVX2__) && defined(__FMA__)
  return static_cast<std::uint32_t>(
      _mm256_movemask_ps(_mm256_cmp_ps(values, _mm256_set1_ps(limit), _CMP_LE_OQ)));
#else
  std::uint32_t bits = 0;
  for (std::size_t l = 0; l < W; ++l) bits |= static_cast<std::uint32_t>(values[l] <= limit) << l;
  return bits;
#endif
}

// The same for the 16 values of a line.
inline std::uint32_t at_most(const Line& line, float limit) {
  std::uint32_t bits = 0;
  for (std::size_t i = 0; i < kLanesOfLine; ++i) {
    bits |= at_most(load(line.value + i * W), limit) << (i * W);
  }
  return bits;
}

}  // namespace
}  // namespace spherequant

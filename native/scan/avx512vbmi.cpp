// 64 items at once: a table of 256 bytes lies in four registers, and one instruction looks 64 items
// up in two of them.
#include <immintrin.h>

#include "scan/byte_scan.h"

namespace spherequant {
namespace {

// Blocks that share one loading of a codebook's table: as many as registers hold the sums of.
constexpr std::size_t kGroup = 4;
// Memory is told what is wanted this many bytes ahead. The order in which a group reads its blocks
// is not one that it would foresee.
constexpr std::size_t kAhead = 4096;

struct Table {
  __m512i part[4];
};

inline Table load_table(const std::uint8_t* table) {
  return {{_mm512_load_si512(table), _mm512_load_si512(table + 64),
           _mm512_load_si512(table + 128), _mm512_load_si512(table + 192)}};
}

// Entries of 64 codes. `upper` marks codes of 128 and more. Each look-up replaces the codes of its
// half by their entries and keeps the others, so that no blending is needed.
inline __m512i look_up(const Table& table, __m512i codes, __mmask64 upper, __mmask64 lower) {
  const __m512i half =
      _mm512_mask2_permutex2var_epi8(table.part[2], codes, upper, table.part[3]);
  return _mm512_mask2_permutex2var_epi8(table.part[0], half, lower, table.part[1]);
}

// Sums of Q queries over G consecutive blocks.
template <std::size_t Q, std::size_t G, bool Cold>
inline void add_up(const std::uint8_t* blocks, std::size_t m, const std::uint8_t* const* tables,
                   __m512i (&sums)[Q][G]) {
#pragma GCC unroll 2
  for (std::size_t q = 0; q < Q; ++q) {
#pragma GCC unroll 8
    for (std::size_t g = 0; g < G; ++g) sums[q][g] = _mm512_setzero_si512();
  }
  for (std::size_t j = 0; j < m; ++j) {
    Table table[Q];
    for (std::size_t q = 0; q < Q; ++q) table[q] = load_table(tables[q] + j * kTableSize);
    for (std::size_t g = 0; g < G; ++g) {
      const std::uint8_t* at = blocks + (g * m + j) * kBlock;
      if constexpr (Cold) _mm_prefetch(reinterpret_cast<const char*>(at) + kAhead, _MM_HINT_T0);
      const __m512i codes = _mm512_load_si512(at);
      const __mmask64 upper = _mm512_movepi8_mask(codes);
      const __mmask64 lower = _knot_mask64(upper);
      for (std::size_t q = 0; q < Q; ++q) {
        sums[q][g] = _mm512_adds_epu8(sums[q][g], look_up(table[q], codes, upper, lower));
      }
    }
  }
}

// Appends the blocks whose sums are not all saturated. Loops over sums are unrolled, or the sums
// would have to lie in memory.
template <std::size_t G>
inline std::size_t append(const __m512i (&sums)[G], std::size_t first, Candidates* found,
                          std::size_t size) {
  const __m512i full = _mm512_set1_epi8(-1);
  __m512i least = sums[0];
#pragma GCC unroll 8
  for (std::size_t g = 1; g < G; ++g) least = _mm512_min_epu8(least, sums[g]);
  if (_mm512_cmpneq_epi8_mask(least, full) == 0) [[likely]] return size;
#pragma GCC unroll 8
  for (std::size_t g = 0; g < G; ++g) {
    const __mmask64 lanes = _mm512_cmpneq_epi8_mask(sums[g], full);
    if (lanes != 0) found[size++] = {lanes, first + g};
  }
  return size;
}

template <std::size_t Q, std::size_t G, bool Cold>
__attribute__((always_inline)) inline void scan_group(const Blocks& blocks, std::size_t first, const std::uint8_t* const* tables,
                       Candidates* const* found, std::size_t* sizes) {
  __m512i sums[Q][G];
  add_up<Q, G, Cold>(blocks.first + first * blocks.m * kBlock, blocks.m, tables, sums);
#pragma GCC unroll 2
  for (std::size_t q = 0; q < Q; ++q) sizes[q] = append<G>(sums[q], first, found[q], sizes[q]);
}

template <std::size_t Q, std::size_t G, bool Cold>
inline void scan(const Blocks& blocks, const std::uint8_t* const* tables,
                 Candidates* const* found, std::size_t* sizes) {
  std::size_t size[Q] = {};
  std::size_t b = 0;
  for (; b + G <= blocks.count; b += G) scan_group<Q, G, Cold>(blocks, b, tables, found, size);
  for (; b < blocks.count; ++b) scan_group<Q, 1, Cold>(blocks, b, tables, found, size);
  for (std::size_t q = 0; q < Q; ++q) sizes[q] = size[q];
}

std::size_t one(const Blocks& blocks, const std::uint8_t* tables, Candidates* found) {
  std::size_t size;
  if (blocks.cold) {
    scan<1, 2 * kGroup, true>(blocks, &tables, &found, &size);
  } else {
    scan<1, 2 * kGroup, false>(blocks, &tables, &found, &size);
  }
  return size;
}

void two(const Blocks& blocks, const std::uint8_t* const tables[2], Candidates* const found[2],
         std::size_t sizes[2]) {
  if (blocks.cold) {
    scan<2, kGroup, true>(blocks, tables, found, sizes);
  } else {
    scan<2, kGroup, false>(blocks, tables, found, sizes);
  }
}

}  // namespace

const ByteScan kAvx512VbmiScan = {"avx512vbmi", &one, &two};

}  // namespace spherequant

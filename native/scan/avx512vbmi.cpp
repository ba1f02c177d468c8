// 64 items at once: a table of groups lies in one register, of pairs in two, of all codewords in
// four. One instruction looks 64 items up in one register, and another, which on some processors
// takes twice as long, in two.
#include <immintrin.h>

#include "scan/block_by_block.h"

namespace spherequant {
namespace {

// Memory is told what is wanted this many bytes ahead. The order in which a few blocks are read
// together is not one that it would foresee.
constexpr std::size_t kAhead = 4096;

inline std::uint64_t not_full(__m512i sums) {
  return _mm512_cmpneq_epi8_mask(sums, _mm512_set1_epi8(-1));
}

// Blocks at .. at + G - 1 for Q queries. The loops over sums are unrolled, or the sums would have to
// lie in memory.
template <std::size_t Q, std::size_t G, bool Cold>
inline void scan_blocks(const Run& run, std::size_t at, const std::uint8_t* const* tables,
                        std::uint64_t* const* lanes) {
  const Blocks blocks = run.blocks;
  const std::uint8_t* const first = blocks.first + at * blocks.lines * kBlock;
  const __m512i start = _mm512_set1_epi8(static_cast<char>(run.start));
  __m512i sums[Q][G];
#pragma GCC unroll 4
  for (std::size_t q = 0; q < Q; ++q) {
#pragma GCC unroll 8
    for (std::size_t g = 0; g < G; ++g) sums[q][g] = start;
  }
  for (std::size_t j = 0; j < blocks.sifted; ++j) {
    __m512i table[Q];
#pragma GCC unroll 4
    for (std::size_t q = 0; q < Q; ++q) table[q] = _mm512_load_si512(tables[q] + j * kGroups);
#pragma GCC unroll 8
    for (std::size_t g = 0; g < G; ++g) {
      const std::uint8_t* codes_at = first + (g * blocks.lines + j) * kBlock;
      if constexpr (Cold) {
        _mm_prefetch(reinterpret_cast<const char*>(codes_at) + kAhead, _MM_HINT_T0);
      }
      const __m512i codes = _mm512_load_si512(codes_at);
#pragma GCC unroll 4
      for (std::size_t q = 0; q < Q; ++q) {
        // Only the low six bits of a code are looked at. The masked form: GCC 12 warns of an
        // uninitialised value inside the plain one.
        const __m512i entries = _mm512_maskz_permutexvar_epi8(~__mmask64{0}, codes, table[q]);
        sums[q][g] = _mm512_adds_epu8(sums[q][g], entries);
      }
    }
  }
#pragma GCC unroll 4
  for (std::size_t q = 0; q < Q; ++q) {
#pragma GCC unroll 8
    for (std::size_t g = 0; g < G; ++g) lanes[q][at + g] = not_full(sums[q][g]);
  }
}

template <std::size_t Q, bool Cold>
void scan(const Run& run, const std::uint8_t* const* tables, std::uint64_t* const* lanes) {
  constexpr std::size_t kTogether = Q <= 2 ? 8 : 4;  // as many as registers hold the sums of
  std::size_t b = 0;
  for (; b + kTogether <= run.count; b += kTogether) {
    scan_blocks<Q, kTogether, Cold>(run, b, tables, lanes);
  }
  for (; b < run.count; ++b) scan_blocks<Q, 1, Cold>(run, b, tables, lanes);
}

template <std::size_t Q>
void scan(const Run& run, const std::uint8_t* const* tables, std::uint64_t* const* lanes) {
  if (run.cold) {
    scan<Q, true>(run, tables, lanes);
  } else {
    scan<Q, false>(run, tables, lanes);
  }
}

void groups(const Run& run, const std::uint8_t* const* tables, std::size_t n_queries,
            std::uint64_t* const* lanes) {
  switch (n_queries) {
    case 1: return scan<1>(run, tables, lanes);
    case 2: return scan<2>(run, tables, lanes);
    case 3: return scan<3>(run, tables, lanes);
    default: return scan<4>(run, tables, lanes);
  }
}

std::uint64_t by_pairs(const std::uint8_t* block, std::size_t sifted, const std::uint8_t* tables,
                       std::uint8_t start) {
  __m512i sums = _mm512_set1_epi8(static_cast<char>(start));
  for (std::size_t j = 0; j < sifted; ++j) {
    const std::uint8_t* table = tables + j * kPairs;
    const __m512i codes = _mm512_load_si512(block + j * kBlock);
    sums = _mm512_adds_epu8(sums, _mm512_permutex2var_epi8(_mm512_load_si512(table), codes,
                                                           _mm512_load_si512(table + 64)));
  }
  return not_full(sums);
}

// Each look-up replaces the codes of its half by their entries and keeps the others, so that no
// blending is needed.
std::uint64_t by_all(const std::uint8_t* block, std::size_t sifted, const std::uint8_t* tables,
                     std::uint8_t start) {
  __m512i sums = _mm512_set1_epi8(static_cast<char>(start));
  for (std::size_t j = 0; j < sifted; ++j) {
    const std::uint8_t* table = tables + j * kExact;
    const __m512i codes = _mm512_load_si512(block + j * kBlock);
    const __mmask64 upper = _mm512_movepi8_mask(codes);
    const __m512i half =
        _mm512_mask2_permutex2var_epi8(_mm512_load_si512(table + 128), codes, upper,
                                       _mm512_load_si512(table + 192));
    const __m512i entries =
        _mm512_mask2_permutex2var_epi8(_mm512_load_si512(table), half, _knot_mask64(upper),
                                       _mm512_load_si512(table + 64));
    sums = _mm512_adds_epu8(sums, entries);
  }
  return not_full(sums);
}

}  // namespace

const ByteScan kAvx512VbmiScan = {"avx512vbmi", 0.8, false, &groups, &narrow<by_pairs>,
                                  &narrow<by_all>};

}  // namespace spherequant

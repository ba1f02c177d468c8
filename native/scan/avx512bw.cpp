// 64 items at once, by the method of avx2.cpp in registers twice as wide; three values are xored at
// once.
#include <immintrin.h>

#include "scan/block_by_block.h"
#include "scan/differences.h"

namespace spherequant {
namespace {

constexpr int kXorOfThree = 0x96;

// After so many codebooks the items of a block are often all out of reach.
constexpr std::size_t kFirstCheck = 3;

// Part h of a table for 64 codes.
inline __m512i part(const std::uint8_t* table, std::size_t h, __m512i codes) {
  // The masked form: GCC 12 warns of an uninitialised value inside the plain one.
  const __m512i entries = _mm512_maskz_broadcast_i32x4(
      0xFFFF, _mm_load_si128(reinterpret_cast<const __m128i*>(table + h * kPart)));
  const __m512i index = _mm512_subs_epi8(codes, _mm512_set1_epi8(static_cast<char>(h * kPart)));
  return _mm512_shuffle_epi8(entries, index);
}

inline __m512i look_up(__m512i codes, const std::uint8_t* table) {
  __m512i entries = _mm512_setzero_si512();
  for (std::size_t half = 0; half < 2; ++half) {
    for (std::size_t h = 0; h < kHalf / kPart; h += 2) {
      entries = _mm512_ternarylogic_epi32(entries, part(table, h, codes),
                                          part(table, h + 1, codes), kXorOfThree);
    }
    codes = _mm512_xor_si512(codes, _mm512_set1_epi8(static_cast<char>(0x80)));
    table += kHalf;
  }
  return entries;
}

std::uint64_t candidates(const std::uint8_t* block, std::size_t m, const std::uint8_t* table) {
  const __m512i full = _mm512_set1_epi8(-1);
  __m512i sums = _mm512_setzero_si512();
  for (std::size_t j = 0; j < m; ++j) {
    sums = _mm512_adds_epu8(
        sums, look_up(_mm512_load_si512(block + j * kBlock), table + j * kTableSize));
    if (j + 1 >= kFirstCheck && _mm512_cmpneq_epi8_mask(sums, full) == 0) return 0;
  }
  return _mm512_cmpneq_epi8_mask(sums, full);
}

std::size_t one(const Blocks& blocks, const std::uint8_t* tables, Candidates* found) {
  Differences differences;
  differ(tables, blocks.m, differences);
  return scan_each(blocks, differences.entry, found, candidates);
}

}  // namespace

const ByteScan kAvx512BwScan = {"avx512bw", &one, &one_after_the_other<one>};

}  // namespace spherequant

// 32 items at once: one instruction looks 32 items up in 16 entries, so that a table of 256 takes
// 16 of them.
//
// Entry h of the 16 parts is stored as part[h] xor part[h - 1]. For a code c, the index of part h
// is c - 16 h: below zero its top bit is set and the look-up gives 0. What is not zero are the parts
// up to c / 16, and their xor is the entry. Each half of the codes starts anew, with signed bytes.
#include <immintrin.h>

#include "scan/differences.h"

namespace spherequant {
namespace {

constexpr std::size_t kLanes = 32;

// After so many codebooks the items of a register are often all out of reach.
constexpr std::size_t kFirstCheck = 2;

inline __m256i part(const std::uint8_t* table, std::size_t h) {
  return _mm256_broadcastsi128_si256(
      _mm_load_si128(reinterpret_cast<const __m128i*>(table + h * kPart)));
}

// Entries of 32 codes in the tables of Q queries.
template <std::size_t Q>
inline void look_up(__m256i codes, const std::uint8_t* const* tables, std::size_t at,
                    __m256i (&entries)[Q]) {
  for (std::size_t q = 0; q < Q; ++q) entries[q] = _mm256_setzero_si256();
  for (std::size_t half = 0; half < 2; ++half) {
    for (std::size_t h = 0; h < kHalf / kPart; ++h) {
      const __m256i index =
          _mm256_subs_epi8(codes, _mm256_set1_epi8(static_cast<char>(h * kPart)));
      for (std::size_t q = 0; q < Q; ++q) {
        const __m256i table = part(tables[q] + at + half * kHalf, h);
        entries[q] = _mm256_xor_si256(entries[q], _mm256_shuffle_epi8(table, index));
      }
    }
    codes = _mm256_xor_si256(codes, _mm256_set1_epi8(static_cast<char>(0x80)));
  }
}

inline std::uint32_t saturated(__m256i sums) {
  return static_cast<std::uint32_t>(
      _mm256_movemask_epi8(_mm256_cmpeq_epi8(sums, _mm256_set1_epi8(-1))));
}

// For each query, the lanes of 32 items that are candidates.
template <std::size_t Q>
inline void candidates(const std::uint8_t* codes, std::size_t m, const std::uint8_t* const* tables,
                       std::uint32_t (&lanes)[Q]) {
  __m256i sums[Q];
  for (std::size_t q = 0; q < Q; ++q) sums[q] = _mm256_setzero_si256();
  for (std::size_t j = 0; j < m; ++j) {
    __m256i entries[Q];
    look_up<Q>(_mm256_load_si256(reinterpret_cast<const __m256i*>(codes + j * kBlock)), tables,
               j * kTableSize, entries);
    std::uint32_t out = ~std::uint32_t{0};
    for (std::size_t q = 0; q < Q; ++q) sums[q] = _mm256_adds_epu8(sums[q], entries[q]);
    if (j + 1 < kFirstCheck) continue;
    for (std::size_t q = 0; q < Q; ++q) out &= saturated(sums[q]);
    if (out == ~std::uint32_t{0}) break;
  }
  for (std::size_t q = 0; q < Q; ++q) lanes[q] = ~saturated(sums[q]);
}

template <std::size_t Q>
inline void scan(const Blocks& blocks, const std::uint8_t* const* tables,
                 Candidates* const* found, std::size_t* sizes) {
  Differences differences[Q];
  const std::uint8_t* entries[Q];
  for (std::size_t q = 0; q < Q; ++q) {
    differ(tables[q], blocks.m, differences[q]);
    entries[q] = differences[q].entry;
    sizes[q] = 0;
  }
  for (std::size_t b = 0; b < blocks.count; ++b) {
    const std::uint8_t* block = blocks.first + b * blocks.m * kBlock;
    std::uint32_t low[Q];
    std::uint32_t high[Q];
    candidates<Q>(block, blocks.m, entries, low);
    candidates<Q>(block + kLanes, blocks.m, entries, high);
    for (std::size_t q = 0; q < Q; ++q) {
      const std::uint64_t lanes = static_cast<std::uint64_t>(high[q]) << kLanes | low[q];
      if (lanes != 0) found[q][sizes[q]++] = {lanes, b};
    }
  }
}

std::size_t one(const Blocks& blocks, const std::uint8_t* tables, Candidates* found) {
  std::size_t size;
  scan<1>(blocks, &tables, &found, &size);
  return size;
}

void two(const Blocks& blocks, const std::uint8_t* const tables[2], Candidates* const found[2],
         std::size_t sizes[2]) {
  scan<2>(blocks, tables, found, sizes);
}

}  // namespace

const ByteScan kAvx2Scan = {"avx2", &one, &two};

}  // namespace spherequant

// 64 items at once, by the method of avx2.cpp in registers twice as wide; three values are xored at
// once.
#include <immintrin.h>

#include "scan/block_by_block.h"
#include "scan/differences.h"

namespace spherequant {
namespace {

constexpr int kXorOfThree = 0x96;

inline __m512i entries_at(const std::uint8_t* table, __m512i index) {
  // The masked form: GCC 12 warns of an uninitialised value inside the plain one.
  const __m512i part = _mm512_maskz_broadcast_i32x4(
      0xFFFF, _mm_load_si128(reinterpret_cast<const __m128i*>(table)));
  return _mm512_shuffle_epi8(part, index);
}

// Adds the entries of 64 codes in one codebook's table for each of Q queries.
template <std::size_t Entries, std::size_t Q>
inline void add_entries(const std::uint8_t* at, const std::uint8_t* const* tables,
                        std::size_t offset, __m512i (&sums)[Q]) {
  __m512i codes = _mm512_load_si512(at);
  if constexpr (Entries < kExact) {
    codes = _mm512_and_si512(codes, _mm512_set1_epi8(static_cast<char>(Entries - 1)));
  }
  __m512i entries[Q];
  for (std::size_t q = 0; q < Q; ++q) entries[q] = _mm512_setzero_si512();
  for (std::size_t start = 0; start < Entries; start += 2 * kPart) {
    if (start == kSigned) codes = _mm512_xor_si512(codes, _mm512_set1_epi8(static_cast<char>(0x80)));
    const char below = static_cast<char>(start % kSigned);
    const __m512i first = _mm512_subs_epi8(codes, _mm512_set1_epi8(below));
    const __m512i second = _mm512_subs_epi8(first, _mm512_set1_epi8(kPart));
    for (std::size_t q = 0; q < Q; ++q) {
      const std::uint8_t* table = tables[q] + offset + start;
      entries[q] = _mm512_ternarylogic_epi32(entries[q], entries_at(table, first),
                                             entries_at(table + kPart, second), kXorOfThree);
    }
  }
  for (std::size_t q = 0; q < Q; ++q) sums[q] = _mm512_adds_epu8(sums[q], entries[q]);
}

// The candidates of a block for each of Q queries.
template <std::size_t Entries, std::size_t Q>
inline void candidates(const std::uint8_t* block, std::size_t sifted,
                       const std::uint8_t* const* tables, std::uint8_t start,
                       std::uint64_t (&lanes)[Q]) {
  __m512i sums[Q];
  for (std::size_t q = 0; q < Q; ++q) sums[q] = _mm512_set1_epi8(static_cast<char>(start));
  for (std::size_t j = 0; j < sifted; ++j) {
    add_entries<Entries, Q>(block + j * kBlock, tables, j * Entries, sums);
  }
  for (std::size_t q = 0; q < Q; ++q) {
    lanes[q] = _mm512_cmpneq_epi8_mask(sums[q], _mm512_set1_epi8(-1));
  }
}

template <std::size_t Entries>
std::uint64_t of_one(const std::uint8_t* block, std::size_t sifted, const std::uint8_t* tables,
                     std::uint8_t start) {
  std::uint64_t lanes[1];
  candidates<Entries, 1>(block, sifted, &tables, start, lanes);
  return lanes[0];
}

template <std::size_t Q>
void scan(const Run& run, const std::uint8_t* const* tables, std::uint64_t* const* lanes) {
  const Blocks blocks = run.blocks;
  for (std::size_t b = 0; b < run.count; ++b) {
    std::uint64_t found[Q];
    const std::uint8_t* const block = blocks.first + b * blocks.lines * kBlock;
    candidates<kGroups, Q>(block, blocks.sifted, tables, run.start, found);
    for (std::size_t q = 0; q < Q; ++q) lanes[q][b] = found[q];
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

}  // namespace

const ByteScan kAvx512BwScan = {"avx512bw", 2.5, true, &groups, &narrow<of_one<kPairs>>,
                                &narrow<of_one<kExact>>};

}  // namespace spherequant

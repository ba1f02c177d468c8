// 32 items at once, 16 entries an instruction, by the differences of differences.h: 4 look-ups for
// groups, 8 for pairs, 16 for all codewords.
#include <immintrin.h>

#include "scan/block_by_block.h"
#include "scan/differences.h"

namespace spherequant {
namespace {

constexpr std::size_t kLanes = 32;

// Adds the entries of 32 codes in one codebook's table for each of Q queries.
template <std::size_t Entries, std::size_t Q>
inline void add_entries(const std::uint8_t* at, const std::uint8_t* const* tables,
                        std::size_t offset, __m256i (&sums)[Q]) {
  __m256i codes = _mm256_load_si256(reinterpret_cast<const __m256i*>(at));
  if constexpr (Entries < kExact) {
    codes = _mm256_and_si256(codes, _mm256_set1_epi8(static_cast<char>(Entries - 1)));
  }
  __m256i entries[Q];
  for (std::size_t q = 0; q < Q; ++q) entries[q] = _mm256_setzero_si256();
  for (std::size_t start = 0; start < Entries; start += kPart) {
    if (start == kSigned) codes = _mm256_xor_si256(codes, _mm256_set1_epi8(static_cast<char>(0x80)));
    const __m256i index =
        _mm256_subs_epi8(codes, _mm256_set1_epi8(static_cast<char>(start % kSigned)));
    for (std::size_t q = 0; q < Q; ++q) {
      const __m256i part = _mm256_broadcastsi128_si256(
          _mm_load_si128(reinterpret_cast<const __m128i*>(tables[q] + offset + start)));
      entries[q] = _mm256_xor_si256(entries[q], _mm256_shuffle_epi8(part, index));
    }
  }
  for (std::size_t q = 0; q < Q; ++q) sums[q] = _mm256_adds_epu8(sums[q], entries[q]);
}

inline std::uint64_t not_full(__m256i sums) {
  const __m256i full = _mm256_cmpeq_epi8(sums, _mm256_set1_epi8(-1));
  return static_cast<std::uint32_t>(~_mm256_movemask_epi8(full));
}

// The candidates of a block for each of Q queries.
template <std::size_t Entries, std::size_t Q>
inline void candidates(const std::uint8_t* block, std::size_t sifted,
                       const std::uint8_t* const* tables, std::uint8_t start,
                       std::uint64_t (&lanes)[Q]) {
  for (std::size_t q = 0; q < Q; ++q) lanes[q] = 0;
  for (std::size_t half = 0; half < kBlock; half += kLanes) {
    __m256i sums[Q];
    for (std::size_t q = 0; q < Q; ++q) sums[q] = _mm256_set1_epi8(static_cast<char>(start));
    for (std::size_t j = 0; j < sifted; ++j) {
      add_entries<Entries, Q>(block + j * kBlock + half, tables, j * Entries, sums);
    }
    for (std::size_t q = 0; q < Q; ++q) lanes[q] |= not_full(sums[q]) << half;
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

// In pairs: more queries would need more registers than there are.
void groups(const Run& run, const std::uint8_t* const* tables, std::size_t n_queries,
            std::uint64_t* const* lanes) {
  std::size_t q = 0;
  for (; q + 1 < n_queries; q += 2) scan<2>(run, tables + q, lanes + q);
  if (q < n_queries) scan<1>(run, tables + q, lanes + q);
}

}  // namespace

const ByteScan kAvx2Scan = {"avx2", 6.0, true, &groups, &narrow<of_one<kPairs>>,
                            &narrow<of_one<kExact>>};

}  // namespace spherequant

// Plain C++: one look-up an item and codebook.
#include "scan/block_by_block.h"

namespace spherequant {
namespace {

template <std::size_t Entries>
std::uint64_t candidates(const std::uint8_t* block, std::size_t sifted, const std::uint8_t* tables,
                         std::uint8_t start) {
  std::uint16_t sums[kBlock];
  for (std::uint16_t& sum : sums) sum = start;
  for (std::size_t j = 0; j < sifted; ++j) {
    const std::uint8_t* codes = block + j * kBlock;
    const std::uint8_t* table = tables + j * Entries;
    for (std::size_t i = 0; i < kBlock; ++i) {
      sums[i] = static_cast<std::uint16_t>(sums[i] + table[codes[i] % Entries]);
    }
  }
  std::uint64_t lanes = 0;
  for (std::size_t i = 0; i < kBlock; ++i) {
    lanes |= static_cast<std::uint64_t>(sums[i] < 255) << i;
  }
  return lanes;
}

}  // namespace

const ByteScan kPortableScan = {"portable", 80.0, false, &query_by_query<candidates<kGroups>>,
                                &narrow<candidates<kPairs>>, &narrow<candidates<kExact>>};

}  // namespace spherequant

// Plain C++: one look-up an item and codebook.
#include "scan/block_by_block.h"

namespace spherequant {
namespace {

std::uint64_t candidates(const std::uint8_t* block, std::size_t m, const std::uint8_t* table) {
  std::uint16_t sums[kBlock] = {};
  for (std::size_t j = 0; j < m; ++j) {
    const std::uint8_t* codes = block + j * kBlock;
    for (std::size_t i = 0; i < kBlock; ++i) {
      sums[i] = static_cast<std::uint16_t>(sums[i] + table[j * kTableSize + codes[i]]);
    }
  }
  std::uint64_t lanes = 0;
  for (std::size_t i = 0; i < kBlock; ++i) {
    lanes |= static_cast<std::uint64_t>(sums[i] < 255) << i;
  }
  return lanes;
}

std::size_t one(const Blocks& blocks, const std::uint8_t* tables, Candidates* found) {
  return scan_each(blocks, tables, found, candidates);
}

}  // namespace

const ByteScan kPortableScan = {"portable", &one, &one_after_the_other<one>};

}  // namespace spherequant

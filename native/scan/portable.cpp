// Plain C++: one look-up an item and codebook.
#include "byte_scan.h"

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
  std::size_t size = 0;
  for (std::size_t b = 0; b < blocks.count; ++b) {
    const std::uint8_t* block = blocks.first + b * blocks.m * kBlock;
    const std::uint64_t lanes = candidates(block, blocks.m, tables);
    if (lanes != 0) found[size++] = {lanes, b};
  }
  return size;
}

void two(const Blocks& blocks, const std::uint8_t* const tables[2], Candidates* const found[2],
         std::size_t sizes[2]) {
  for (std::size_t q = 0; q < 2; ++q) sizes[q] = one(blocks, tables[q], found[q]);
}

}  // namespace

const ByteScan kPortableScan = {"portable", &one, &two};

}  // namespace spherequant

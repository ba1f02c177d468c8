// For levels that take one block and one query at a time. Everything is in an unnamed namespace: each
// file must keep the copy that was compiled with its own flags.
#pragma once

#include "scan/byte_scan.h"

namespace spherequant {
namespace {

// `candidates(block, m, tables)` gives the lanes of one block.
template <class Lanes>
inline std::size_t scan_each(const Blocks& blocks, const std::uint8_t* tables, Candidates* found,
                             const Lanes& candidates) {
  std::size_t size = 0;
  for (std::size_t b = 0; b < blocks.count; ++b) {
    const std::uint8_t* block = blocks.first + b * blocks.m * kBlock;
    const std::uint64_t lanes = candidates(block, blocks.m, tables);
    if (lanes != 0) found[size++] = {lanes, b};
  }
  return size;
}

template <std::size_t (*One)(const Blocks&, const std::uint8_t*, Candidates*)>
void one_after_the_other(const Blocks& blocks, const std::uint8_t* const tables[2],
                         Candidates* const found[2], std::size_t sizes[2]) {
  for (std::size_t q = 0; q < 2; ++q) sizes[q] = One(blocks, tables[q], found[q]);
}

}  // namespace
}  // namespace spherequant

// For levels that take one block at a time. Everything is in an unnamed namespace: each file must
// keep the copy that was compiled with its own flags.
#pragma once

#include "scan/byte_scan.h"

namespace spherequant {
namespace {

// `Lanes(block, m, tables)` gives the candidates of one block for one query.
template <std::uint64_t (*Lanes)(const std::uint8_t*, std::size_t, const std::uint8_t*)>
std::size_t narrow(const std::uint8_t* first, std::size_t m, const std::uint8_t* tables,
                   Candidates* found, std::size_t size) {
  std::size_t kept = 0;
  for (std::size_t i = 0; i < size; ++i) {
    const Candidates before = found[i];
    const std::uint64_t lanes = before.lanes & Lanes(first + before.block * m * kBlock, m, tables);
    found[kept] = {lanes, before.block};
    kept += lanes != 0;
  }
  return kept;
}

template <std::uint64_t (*Lanes)(const std::uint8_t*, std::size_t, const std::uint8_t*)>
void query_by_query(const Blocks& blocks, const std::uint8_t* const* tables,
                    std::size_t n_queries, std::uint64_t* const* lanes) {
  for (std::size_t b = 0; b < blocks.count; ++b) {
    const std::uint8_t* block = blocks.first + b * blocks.m * kBlock;
    for (std::size_t q = 0; q < n_queries; ++q) lanes[q][b] = Lanes(block, blocks.m, tables[q]);
  }
}

}  // namespace
}  // namespace spherequant

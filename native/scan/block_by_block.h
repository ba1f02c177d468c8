// For levels that take one block at a time. Everything is in an unnamed namespace: each file must
// keep the copy that was compiled with its own flags.
#pragma once

#include "scan/byte_scan.h"

namespace spherequant {
namespace {

// (block, sifted, tables, start) to the candidates of one block for one query.
using LanesOf = std::uint64_t (*)(const std::uint8_t*, std::size_t, const std::uint8_t*,
                                  std::uint8_t);

template <LanesOf Lanes>
std::size_t narrow(const Blocks& blocks, const std::uint8_t* tables, Candidates* found,
                   std::size_t size) {
  std::size_t kept = 0;
  for (std::size_t i = 0; i < size; ++i) {
    const Candidates before = found[i];
    const std::uint8_t* block = blocks.first + before.block * blocks.lines * kBlock;
    const std::uint64_t lanes = before.lanes & Lanes(block, blocks.sifted, tables, before.start);
    found[kept] = {lanes, before.block, before.start};
    kept += lanes != 0;
  }
  return kept;
}

template <LanesOf Lanes>
void query_by_query(const Run& run, const std::uint8_t* const* tables, std::size_t n_queries,
                    std::uint64_t* const* lanes) {
  const Blocks& blocks = run.blocks;
  for (std::size_t b = 0; b < run.count; ++b) {
    const std::uint8_t* block = blocks.first + b * blocks.lines * kBlock;
    for (std::size_t q = 0; q < n_queries; ++q) {
      lanes[q][b] = Lanes(block, blocks.sifted, tables[q], run.start);
    }
  }
}

}  // namespace
}  // namespace spherequant

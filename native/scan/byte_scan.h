// The innermost loop of search: which items of transposed blocks may be among the best.
//
// A block holds the codes of 64 items, codebook by codebook: 64 bytes for m = 0, then 64 for m = 1,
// and so on. A query comes as M tables of 256 bytes, entry [m][c] a lower bound on what codeword c
// of codebook m costs against the best one, in units in which a hit costs 254 at most. An item
// whose entries add up to 255 or more, saturating, is no hit; every other item is a candidate,
// to be scored in float.
//
// There is one implementation for each instruction set, in a file of its own that is compiled with
// that set's flags and uses nothing of the standard library but its integers: an inline function
// compiled with wide instructions must never be the copy that the linker keeps for all.
#pragma once

#include <cstddef>
#include <cstdint>

namespace spherequant {

inline constexpr std::size_t kBlock = 64;       // items of a block
inline constexpr std::size_t kTableSize = 256;  // entries of a codebook's table of bytes

// The candidates of a block: bit i of `lanes` stands for its item i.
struct Candidates {
  std::uint64_t lanes;
  std::size_t block;
};

// What a scan of several blocks is given.
struct Blocks {
  const std::uint8_t* first;  // aligned to 64 bytes
  std::size_t count;
  std::size_t m;
  bool cold;  // whether they come from memory, and not from a cache
};

// Scans blocks for one query, or for two at once, which reads each code once.
struct ByteScan {
  const char* name;
  // Writes the blocks that have candidates, in ascending order; returns how many. `found` has room
  // for all; `tables` is aligned to 64 bytes.
  std::size_t (*one)(const Blocks& blocks, const std::uint8_t* tables, Candidates* found);
  // The same for two queries; `sizes` receives how many blocks each has.
  void (*two)(const Blocks& blocks, const std::uint8_t* const tables[2],
              Candidates* const found[2], std::size_t sizes[2]);
};

#if defined(__x86_64__)
extern const ByteScan kAvx512VbmiScan;
extern const ByteScan kAvx512BwScan;
extern const ByteScan kAvx2Scan;
#elif defined(__aarch64__)
extern const ByteScan kNeonScan;
#endif
extern const ByteScan kPortableScan;

}  // namespace spherequant

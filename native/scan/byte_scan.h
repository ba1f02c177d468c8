// The innermost loops of search: which items of transposed blocks may be among the best.
//
// A block holds the codes of 64 items, codebook by codebook, a line of 64 bytes for each. A query
// comes as tables of bytes, in the order of the lines. Entry [line][c] is a lower bound on what
// codeword c of that codebook costs against the best one, in units in which a hit costs 254 at most.
// An item whose entries add up to 255 or more, saturating, is no hit; every other item is a
// candidate, in the end to be scored in float.
//
// The items of a bucket share the codewords of two codebooks, whose lines come last (layout.h). These
// are not looked up: the sums begin with what the two codewords cost together.
//
// Tables come in three sizes. The exact one has an entry for each of 256 codewords. Codewords are
// numbered such that similar ones share their low bits (numbering.h): the table of pairs has an
// entry for every two of them that share seven bits, the table of groups one for every four that
// share six, each the least of the entries that it stands for. So the smaller tables bound what the
// exact one says, and are looked up two and four times as fast or more: groups sift all blocks,
// pairs what that leaves, the exact table what is left then.
//
// There is one implementation for each instruction set, in a file of its own that is compiled with
// that set's flags and uses nothing of the standard library but its integers: an inline function
// compiled with wide instructions must never be the copy that the linker keeps for all.
#pragma once

#include <cstddef>
#include <cstdint>

namespace spherequant {

inline constexpr std::size_t kBlock = 64;  // items of a block
inline constexpr std::size_t kMaxCodebooks = 16;
inline constexpr std::size_t kMaxCodewords = 256;

// Entries of a codebook's table.
inline constexpr std::size_t kExact = 256;
inline constexpr std::size_t kPairs = 128;
inline constexpr std::size_t kGroups = 64;

// The candidates of a block: bit i of `lanes` stands for its item i.
struct Candidates {
  std::uint64_t lanes;
  std::uint32_t block;
  std::uint8_t start;  // a lower bound on what the lines that are not sifted cost
};

// Blocks of `lines` lines, of which the first `sifted` are looked up. Block b begins at
// first + b * lines * kBlock.
struct Blocks {
  const std::uint8_t* first;  // aligned to 64 bytes
  std::size_t lines;
  std::size_t sifted;
};

// Blocks that lie behind each other, and their `start`.
struct Run {
  Blocks blocks;
  std::size_t count;
  std::uint8_t start;
  bool cold;  // whether they come from memory, and not from a cache
};

// So many queries are scanned for together, which reads each code once.
inline constexpr std::size_t kQueriesAtOnce = 4;

struct ByteScan {
  const char* name;
  // About how many nanoseconds it takes to look 64 items up in one codebook's table of groups, for the
  // choice between ways that find the same.
  double look_up_time;
  // Whether the tables that it is given must be prepared by `differ` (differences.h).
  bool differences;
  // By groups: writes the candidates of every block for each of 1 to kQueriesAtOnce queries.
  // tables[q] holds a table for each line, aligned to 64 bytes; lanes[q] has room for `run.count`
  // words.
  void (*groups)(const Run& run, const std::uint8_t* const* tables, std::size_t n_queries,
                 std::uint64_t* const* lanes);
  // By pairs and by all codewords: keeps, of `size` blocks and the lanes given, the candidates, and
  // no block without any. Returns how many blocks are left.
  std::size_t (*pairs)(const Blocks& blocks, const std::uint8_t* tables, Candidates* found,
                       std::size_t size);
  std::size_t (*exact)(const Blocks& blocks, const std::uint8_t* tables, Candidates* found,
                       std::size_t size);
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

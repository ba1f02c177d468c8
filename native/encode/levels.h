// The inner loops of encoding: one implementation for each instruction set, in a file of its own
// that is compiled with that set's flags and uses nothing of the standard library but its integers
// (see scan/byte_scan.h). All compute the same bits: encode.h states every operation and its order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "encode/line.h"

namespace spherequant {

// What encoding reads: see EncodingTables.
struct TablesView {
  std::size_t m, k, lines;  // lines: of the codewords of one codebook
  const Line* norm;         // [M, lines]
  const Line* pair;         // [M, M, K, lines]: pair[to, from, c]
};

// What an inner product with sparse rows reads: see SparseColumns.
struct SparseView {
  std::size_t k, d;
  const std::uint32_t* order;  // [k]
  const std::size_t* starts;   // [slices + 1]
  const Line* values;          // [steps]
  const std::uint16_t* dims;   // [steps, 16]
};

inline constexpr std::size_t kSparseRows = 64;  // rows of x multiplied together, at most
inline constexpr std::size_t kSparseScratch = kSparseRows / kLine;  // lines that hold these
inline constexpr std::size_t kSparseWindow = 256;  // rows of y sorted among themselves

inline constexpr std::size_t kCodeStride = 16;  // bytes of a prefix: one register

// How hard to look for codes: see EncodingTables::encode.
struct Effort {
  std::size_t beam;        // 1 or more
  std::size_t icm_rounds;
  std::size_t icm_starts;  // 1 to beam
};

// What one thread writes while it encodes a tile of rows.
struct Workspace {
  Line* unary;               // [rows, M, lines]: <x, C_m[c]> on entry
  Line* costs;               // [beam, lines]: of every candidate of one row at one codebook
  Line* least;               // [beam, lines / 4]: the least of each four lines of these
  Line* groups;              // [group_lines]: the least of groups of candidates
  std::size_t group_lines;
  std::size_t* prefixes;     // [rows]: how many each row has, later how many whole codes
  std::size_t* unchanged;    // [rows, icm_starts]: visits since a codeword of the code changed
  float* cost;               // [rows, beam]
  std::uint8_t* codes;       // [rows, beam, 16]: the prefixes; zeros from M on, always
  std::uint8_t* former;      // [rows, beam, 16]: those that they go on from
  std::uint8_t* codeword;    // [beam]: how the candidates that stay go on
  std::uint16_t* from;       // [beam]: and from which prefix
};

struct EncodingLevel {
  const char* name;
  // out[r, j] = the sums of lines j of x[rows, D] with columns [lines, D]; lines are whole blocks.
  void (*multiply)(const float* x, const Line* columns, Line* out, std::size_t rows,
                   std::size_t lines, std::size_t d);
  // out[r, c] = the inner products of x[rows, D] with k sparse rows; scratch has room for
  // kSparseScratch * (D + kSparseWindow) lines; one row needs none.
  void (*multiply_sparse)(const SparseView& y, const float* x, Line* scratch, float* out,
                          std::size_t rows);
  // codes[rows, M] from workspace.unary.
  void (*encode)(const TablesView& tables, Workspace workspace, std::uint8_t* codes,
                 std::size_t rows, const Effort& effort);
};

#if defined(__x86_64__)
extern const EncodingLevel kAvx512Encoding;
extern const EncodingLevel kAvx2Encoding;
#endif
extern const EncodingLevel kPortableEncoding;  // with NEON where there is NEON

// Those that this machine can run, the fastest first; the portable one is always the last.
std::span<const EncodingLevel* const> encoding_levels();

}  // namespace spherequant

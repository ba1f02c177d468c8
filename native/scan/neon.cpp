// 16 items at once: one instruction looks 16 items up in 64 entries, so that a table of 256 takes
// four of them; an index out of range leaves what was there.
#include <arm_neon.h>

#include "scan/block_by_block.h"

namespace spherequant {
namespace {

constexpr std::size_t kLanes = 16;
constexpr std::size_t kPart = 64;

inline uint8x16_t look_up(uint8x16_t codes, const std::uint8_t* table) {
  uint8x16_t entries = vdupq_n_u8(0);
  for (std::size_t start = 0; start < kTableSize; start += kPart) {
    const uint8x16_t index = vsubq_u8(codes, vdupq_n_u8(static_cast<std::uint8_t>(start)));
    entries = vqtbx4q_u8(entries, vld1q_u8_x4(table + start), index);
  }
  return entries;
}

// Bit i of the result tells whether byte i is not 255.
inline std::uint64_t not_full(uint8x16_t sums) {
  const uint8x16_t bits = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
  const uint8x16_t set = vbicq_u8(bits, vceqq_u8(sums, vdupq_n_u8(255)));
  return vaddv_u8(vget_low_u8(set)) | static_cast<std::uint64_t>(vaddv_u8(vget_high_u8(set))) << 8;
}

std::uint64_t candidates(const std::uint8_t* block, std::size_t m, const std::uint8_t* table) {
  std::uint64_t lanes = 0;
  for (std::size_t i = 0; i < kBlock; i += kLanes) {
    uint8x16_t sums = vdupq_n_u8(0);
    for (std::size_t j = 0; j < m; ++j) {
      const uint8x16_t codes = vld1q_u8(block + j * kBlock + i);
      sums = vqaddq_u8(sums, look_up(codes, table + j * kTableSize));
    }
    lanes |= not_full(sums) << i;
  }
  return lanes;
}

std::size_t one(const Blocks& blocks, const std::uint8_t* tables, Candidates* found) {
  return scan_each(blocks, tables, found, candidates);
}

}  // namespace

const ByteScan kNeonScan = {"neon", &one, &one_after_the_other<one>};

}  // namespace spherequant

// 16 items at once: one instruction looks 16 items up in 64 entries, so that groups take one of
// them, pairs two and all codewords four; an index out of range leaves what was there.
#include <arm_neon.h>

#include "scan/block_by_block.h"

namespace spherequant {
namespace {

constexpr std::size_t kLanes = 16;
constexpr std::size_t kPart = 64;

template <std::size_t Entries>
inline uint8x16_t look_up(uint8x16_t codes, const std::uint8_t* table) {
  codes = vandq_u8(codes, vdupq_n_u8(static_cast<std::uint8_t>(Entries - 1)));
  uint8x16_t entries = vdupq_n_u8(0);
  for (std::size_t start = 0; start < Entries; start += kPart) {
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

template <std::size_t Entries>
std::uint64_t candidates(const std::uint8_t* block, std::size_t sifted, const std::uint8_t* tables,
                         std::uint8_t start) {
  uint8x16_t sums[kBlock / kLanes];
  for (uint8x16_t& sum : sums) sum = vdupq_n_u8(start);
  for (std::size_t j = 0; j < sifted; ++j) {
    for (std::size_t i = 0; i < kBlock / kLanes; ++i) {
      const uint8x16_t codes = vld1q_u8(block + j * kBlock + i * kLanes);
      sums[i] = vqaddq_u8(sums[i], look_up<Entries>(codes, tables + j * Entries));
    }
  }
  std::uint64_t lanes = 0;
  for (std::size_t i = 0; i < kBlock / kLanes; ++i) lanes |= not_full(sums[i]) << (i * kLanes);
  return lanes;
}

}  // namespace

const ByteScan kNeonScan = {"neon", 2.5, false, &query_by_query<candidates<kGroups>>,
                            &narrow<candidates<kPairs>>, &narrow<candidates<kExact>>};

}  // namespace spherequant

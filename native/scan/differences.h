// Tables for levels that look up 16 entries at a time. Everything is in an unnamed namespace: each
// file must keep the copy that was compiled with its own flags.
#pragma once

#include "scan/byte_scan.h"

namespace spherequant {
namespace {

constexpr std::size_t kMaxCodebooks = 16;
constexpr std::size_t kPart = 16;
constexpr std::size_t kHalf = kTableSize / 2;

// Entry h of the 16 parts of a table, as part[h] xor part[h - 1]; each half starts anew.
struct alignas(64) Differences {
  std::uint8_t entry[kMaxCodebooks * kTableSize];
};

inline void differ(const std::uint8_t* tables, std::size_t m, Differences& out) {
  for (std::size_t start = 0; start < m * kTableSize; start += kHalf) {
    for (std::size_t i = 0; i < kPart; ++i) out.entry[start + i] = tables[start + i];
    for (std::size_t i = kPart; i < kHalf; ++i) {
      out.entry[start + i] = tables[start + i] ^ tables[start + i - kPart];
    }
  }
}

}  // namespace
}  // namespace spherequant

// How levels that look 16 entries up at a time want their tables.
//
// Part h of a table is stored as part[h] xor part[h - 1]. For a code c, the index of part h is
// c - 16 h: below zero its top bit is set and the look-up gives 0. What is not zero are the parts up
// to c / 16, and their xor is the entry. Since bytes are signed there, every 128 entries start anew.
#pragma once

#include <cstddef>

namespace spherequant {

inline constexpr std::size_t kPart = 16;
inline constexpr std::size_t kSigned = 128;

}  // namespace spherequant

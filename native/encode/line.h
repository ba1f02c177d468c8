// 16 float32 in one cache line: one AVX-512 register, two of AVX2, four of SSE or NEON.
#pragma once

#include <cstddef>

namespace spherequant {

inline constexpr std::size_t kLine = 16;
struct alignas(64) Line {
  float value[kLine];
};

// Columns come in blocks of so many lines: 64 codewords.
inline constexpr std::size_t kBlockLines = 4;

}  // namespace spherequant

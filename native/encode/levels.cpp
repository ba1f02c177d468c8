#include "encode/levels.h"

#include <vector>

namespace spherequant {
namespace {

std::vector<const EncodingLevel*> detect() {
  std::vector<const EncodingLevel*> levels;
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f")) levels.push_back(&kAvx512Encoding);
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    levels.push_back(&kAvx2Encoding);
  }
#endif
  levels.push_back(&kPortableEncoding);
  return levels;
}

}  // namespace

std::span<const EncodingLevel* const> encoding_levels() {
  static const std::vector<const EncodingLevel*> levels = detect();
  return levels;
}

}  // namespace spherequant

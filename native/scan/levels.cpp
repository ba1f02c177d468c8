#include "scan/levels.h"

#include <vector>

namespace spherequant {
namespace {

std::vector<const ByteScan*> detect() {
  std::vector<const ByteScan*> levels;
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")) {
    if (__builtin_cpu_supports("avx512vbmi")) levels.push_back(&kAvx512VbmiScan);
    levels.push_back(&kAvx512BwScan);
  }
  if (__builtin_cpu_supports("avx2")) levels.push_back(&kAvx2Scan);
#elif defined(__aarch64__)
  levels.push_back(&kNeonScan);  // every such machine has it
#endif
  levels.push_back(&kPortableScan);
  return levels;
}

}  // namespace

std::span<const ByteScan* const> available_levels() {
  static const std::vector<const ByteScan*> levels = detect();
  return levels;
}

}  // namespace spherequant

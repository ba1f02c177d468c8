// The numbers by which codes are stored for scanning.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "scan/byte_scan.h"

namespace spherequant {

// A number below 256 for each of K codewords of M codebooks, all different within a codebook.
class Numbering {
 public:
  // Every codeword keeps its own.
  Numbering(std::size_t m, std::size_t k);
  // From numbers[M, K], which must be different within each codebook.
  Numbering(const std::uint8_t* numbers_MK, std::size_t m, std::size_t k);

  std::uint8_t number(std::size_t j, std::size_t codeword) const { return numbers_[j * k_ + codeword]; }
  std::uint8_t codeword(std::size_t j, std::size_t number) const { return codewords_[j][number]; }
  const std::vector<std::uint8_t>& numbers() const { return numbers_; }
  bool operator==(const Numbering& other) const { return numbers_ == other.numbers_; }

 private:
  std::size_t k_;
  std::vector<std::uint8_t> numbers_;                         // [M, K]
  std::vector<std::array<std::uint8_t, kExact>> codewords_;  // [M]: 0 where a number is not used
};

// Numbers codewords such that similar ones share their low bits: two the low seven (a pair), four
// the low six (a group). The less the codewords of a pair or group differ, the closer are the bounds
// of byte_scan.h; any numbering is correct. Pairs and then groups are made by taking the nearest two
// first, then by exchanging partners as long as that lowers the sum of squared distances.
//
// Writes numbers[M, K] for codebooks[M, K, D]; K of at most 64 need no grouping and keep their own.
void number_codewords(const float* codebooks_MKD, std::size_t m, std::size_t k, std::size_t d,
                      std::size_t threads, std::uint8_t* numbers_MK);

}  // namespace spherequant

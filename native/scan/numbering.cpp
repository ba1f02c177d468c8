#include "scan/numbering.h"

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

#include "scan/byte_scan.h"
#include "threads.h"

namespace spherequant {
namespace {

constexpr std::size_t kNone = ~std::size_t{0};
constexpr std::size_t kSweeps = 20;

struct Distances {
  std::size_t n;
  std::vector<float> value;  // [n, n]
  float operator()(std::size_t a, std::size_t b) const { return value[a * n + b]; }
};

struct Couple {
  std::size_t first;
  std::size_t second;  // kNone where one is alone
};

// Exchanges partners while that lowers the sum of distances.
void improve(const Distances& distance, std::vector<Couple>& couples) {
  bool improved = true;
  for (std::size_t sweep = 0; improved && sweep < kSweeps; ++sweep) {
    improved = false;
    for (std::size_t i = 0; i < couples.size(); ++i) {
      for (std::size_t j = i + 1; j < couples.size(); ++j) {
        Couple& one = couples[i];
        Couple& two = couples[j];
        if (one.second == kNone || two.second == kNone) continue;
        const float now = distance(one.first, one.second) + distance(two.first, two.second);
        const float crossed = distance(one.first, two.second) + distance(two.first, one.second);
        const float aligned = distance(one.first, two.first) + distance(one.second, two.second);
        if (std::min(crossed, aligned) >= now) continue;
        if (crossed <= aligned) {
          std::swap(one.second, two.second);
        } else {
          std::swap(one.second, two.first);
        }
        improved = true;
      }
    }
  }
}

// Puts n things into `most` couples or fewer, and joins no more than that takes.
std::vector<Couple> couple(const Distances& distance, std::size_t most) {
  const std::size_t n = distance.n;
  std::size_t wanted = n > most ? n - most : 0;
  std::vector<std::uint32_t> nearest;
  for (std::size_t a = 0; a < n; ++a) {
    for (std::size_t b = a + 1; b < n; ++b) nearest.push_back(static_cast<std::uint32_t>(a * n + b));
  }
  std::stable_sort(nearest.begin(), nearest.end(), [&](std::uint32_t a, std::uint32_t b) {
    return distance.value[a] < distance.value[b];
  });
  std::vector<Couple> couples;
  std::vector<bool> taken(n, false);
  for (const std::uint32_t two : nearest) {
    if (wanted == 0) break;
    const std::size_t a = two / n;
    const std::size_t b = two % n;
    if (taken[a] || taken[b]) continue;
    taken[a] = taken[b] = true;
    couples.push_back({a, b});
    --wanted;
  }
  improve(distance, couples);
  for (std::size_t a = 0; a < n; ++a) {
    if (!taken[a]) couples.push_back({a, kNone});
  }
  return couples;
}

Distances between_codewords(const float* codewords_KD, std::size_t k, std::size_t d) {
  Distances distance{k, std::vector<float>(k * k, 0.0F)};
  for (std::size_t a = 0; a < k; ++a) {
    for (std::size_t b = 0; b < a; ++b) {
      float sum = 0.0F;
      for (std::size_t i = 0; i < d; ++i) {
        const float difference = codewords_KD[a * d + i] - codewords_KD[b * d + i];
        sum += difference * difference;
      }
      distance.value[a * k + b] = distance.value[b * k + a] = sum;
    }
  }
  return distance;
}

// Of two couples, the sum over one member of each.
Distances between_couples(const Distances& distance, const std::vector<Couple>& couples) {
  const std::size_t n = couples.size();
  Distances between{n, std::vector<float>(n * n, 0.0F)};
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t j = 0; j < n; ++j) {
      for (const std::size_t a : {couples[i].first, couples[i].second}) {
        for (const std::size_t b : {couples[j].first, couples[j].second}) {
          if (a != kNone && b != kNone) between.value[i * n + j] += distance(a, b);
        }
      }
    }
  }
  return between;
}

void number_one(const float* codewords_KD, std::size_t k, std::size_t d, std::uint8_t* numbers_K) {
  const Distances distance = between_codewords(codewords_KD, k, d);
  const std::vector<Couple> pairs = couple(distance, kPairs);
  const std::vector<Couple> groups = couple(between_couples(distance, pairs), kGroups);
  for (std::size_t g = 0; g < groups.size(); ++g) {
    std::size_t number = g;
    for (const std::size_t p : {groups[g].first, groups[g].second}) {
      if (p == kNone) continue;
      numbers_K[pairs[p].first] = static_cast<std::uint8_t>(number);
      if (pairs[p].second != kNone) {
        numbers_K[pairs[p].second] = static_cast<std::uint8_t>(number + kPairs);
      }
      number += kGroups;
    }
  }
}

}  // namespace

Numbering::Numbering(std::size_t m, std::size_t k) : k_(k), numbers_(m * k), codewords_(m) {
  for (std::size_t j = 0; j < m; ++j) {
    std::iota(numbers_.begin() + static_cast<std::ptrdiff_t>(j * k),
              numbers_.begin() + static_cast<std::ptrdiff_t>((j + 1) * k), std::uint8_t{0});
    std::iota(codewords_[j].begin(), codewords_[j].end(), std::uint8_t{0});
  }
}

Numbering::Numbering(const std::uint8_t* numbers_MK, std::size_t m, std::size_t k)
    : k_(k), numbers_(numbers_MK, numbers_MK + m * k), codewords_(m) {
  for (std::size_t j = 0; j < m; ++j) {
    codewords_[j].fill(0);
    for (std::size_t c = 0; c < k; ++c) {
      codewords_[j][number(j, c)] = static_cast<std::uint8_t>(c);
    }
  }
}

void number_codewords(const float* codebooks_MKD, std::size_t m, std::size_t k, std::size_t d,
                      std::size_t threads, std::uint8_t* numbers_MK) {
  for_each_task(m, threads, [&](std::size_t j, std::size_t) {
    std::uint8_t* numbers_K = numbers_MK + j * k;
    if (k <= kGroups) {
      std::iota(numbers_K, numbers_K + k, std::uint8_t{0});
    } else {
      number_one(codebooks_MKD + j * k * d, k, d, numbers_K);
    }
  });
}

}  // namespace spherequant

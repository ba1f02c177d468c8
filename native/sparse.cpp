#include "sparse.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <memory>
#include <numeric>

#include "threads.h"

namespace spherequant {
namespace {

constexpr double kLeastProduct = 0x1p-101;

// The least magnitude that is not zero; infinity where all are zero.
float least_magnitude(const float* values, std::size_t n) {
  // Magnitudes are ordered as their bits are. Less 1, those of zero become the greatest number.
  std::uint32_t least = std::numeric_limits<std::uint32_t>::max();
  for (std::size_t i = 0; i < n; ++i) {
    least = std::min(least, (std::bit_cast<std::uint32_t>(values[i]) & 0x7FFFFFFFU) - 1);
  }
  if (least == std::numeric_limits<std::uint32_t>::max()) {
    return std::numeric_limits<float>::infinity();
  }
  return std::bit_cast<float>(least + 1);
}

}  // namespace

SparseColumns::SparseColumns(const float* y_KD, std::size_t k, std::size_t d)
    : k_(k), d_(d), least_(least_magnitude(y_KD, k * d)), order_(k), starts_{0} {
  std::vector<std::size_t> lengths(k);
  for (std::size_t c = 0; c < k; ++c) {
    const float* row = y_KD + c * d;
    lengths[c] = d - static_cast<std::size_t>(std::count(row, row + d, 0.0F));
  }
  std::iota(order_.begin(), order_.end(), 0);
  for (std::size_t window = 0; window < k; window += kSparseWindow) {
    std::stable_sort(order_.begin() + window, order_.begin() + std::min(k, window + kSparseWindow),
                     [&](std::uint32_t a, std::uint32_t b) { return lengths[a] > lengths[b]; });
  }
  for (std::size_t first = 0; first < k; first += kLine) {
    starts_.push_back(starts_.back() + lengths[order_[first]]);
  }
  values_.resize(starts_.back(), Line{});
  dims_.resize(starts_.back() * kLine);
  for (std::size_t place = 0; place < k; ++place) {
    const float* row = y_KD + order_[place] * d;
    std::size_t step = starts_[place / kLine];
    for (std::size_t i = 0; i < d; ++i) {
      if (row[i] == 0) continue;
      values_[step].value[place % kLine] = row[i];
      dims_[step * kLine + place % kLine] = static_cast<std::uint16_t>(i);
      ++step;
    }
  }
}

bool SparseColumns::exact(const float* x_ND, std::size_t n) const {
  return static_cast<double>(least_magnitude(x_ND, n * d_)) * least_ >= kLeastProduct;
}

void SparseColumns::inner_products(const float* x_ND, float* out_NK, std::size_t n,
                                   std::size_t threads, const EncodingLevel& level) const {
  if (n == 0 || k_ == 0) return;
  const SparseView view{k_, d_, order_.data(), starts_.data(), values_.data(), dims_.data()};
  // Tiles as large as the level takes; smaller ones, of whole lines, where threads would be idle.
  const std::size_t share = ((n + threads - 1) / threads + kLine - 1) / kLine * kLine;
  const std::size_t rows = std::min(share, kSparseRows);
  const std::size_t tasks = (n + rows - 1) / rows;
  // Allocated here, so that no thread can run out of memory where nobody would catch it.
  std::vector<std::unique_ptr<Line[]>> scratch(std::min(threads, tasks));
  for (auto& lines : scratch) {
    lines = std::make_unique_for_overwrite<Line[]>(n == 1 ? 0 : kSparseScratch * (d_ + kSparseWindow));
  }
  for_each_task(tasks, scratch.size(), [&](std::size_t i, std::size_t thread) {
    const std::size_t first = i * rows;
    level.multiply_sparse(view, x_ND + first * d_, scratch[thread].get(), out_NK + first * k_,
                          std::min(n, first + rows) - first);
  });
}

}  // namespace spherequant

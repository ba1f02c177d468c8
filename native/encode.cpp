#include "encode.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "threads.h"

namespace spherequant {

static_assert(EncodingTables::kMaxCodebooks == kCodeStride);
namespace {

constexpr std::size_t kRowsAtATime = 96;       // rows a thread takes at once, at most
constexpr std::size_t kLeastRows = 24;         // and at least, where there are so many
constexpr std::size_t kPrefixesAtATime = 4096; // of these rows together
constexpr std::size_t kBlock = kBlockLines * kLine;

// Lines that hold so many columns: whole blocks.
std::size_t lines_for(std::size_t columns) {
  return (columns + kBlock - 1) / kBlock * kBlockLines;
}

// Rows that a thread takes at once.
std::size_t rows_at_a_time(std::size_t n, std::size_t threads, std::size_t beam) {
  const std::size_t share = (n + threads - 1) / threads;
  const std::size_t rows = (share + kLeastRows - 1) / kLeastRows * kLeastRows;
  return std::max<std::size_t>(1, std::min({rows, kRowsAtATime, kPrefixesAtATime / beam}));
}

// Calls work(first, last, thread) for consecutive ranges that cover 0..n-1. Rows are independent,
// so which thread takes which range does not matter.
template <class Work>
void for_rows(std::size_t n, std::size_t rows, std::size_t threads, const Work& work) {
  for_each_task((n + rows - 1) / rows, threads, [&](std::size_t i, std::size_t thread) {
    work(i * rows, std::min(n, (i + 1) * rows), thread);
  });
}

// y_KD as columns: [lines, D], padded with zeros. A line holds a value of each of 16 rows of y.
std::vector<Line> transposed(const float* y_KD, std::size_t k, std::size_t d) {
  std::vector<Line> columns(lines_for(k) * d, Line{});
  for (std::size_t c = 0; c < k; ++c) {
    Line* column = columns.data() + c / kLine * d;
    for (std::size_t i = 0; i < d; ++i) column[i].value[c % kLine] = y_KD[c * d + i];
  }
  return columns;
}

// A number of threads that all have work, and a buffer for each.
template <class T>
std::vector<std::vector<T>> buffers(std::size_t n, std::size_t rows, std::size_t threads,
                                    std::size_t size) {
  // Allocated here, so that no thread can run out of memory where nobody would catch it.
  return std::vector<std::vector<T>>(std::min(threads, (n + rows - 1) / rows),
                                     std::vector<T>(size));
}

// The memory behind a Workspace.
struct Scratch {
  std::vector<Line> unary, costs, least, groups;
  std::vector<std::size_t> prefixes, unchanged;
  std::vector<float> cost;
  std::vector<std::uint8_t> codes, former, codeword;
  std::vector<std::uint16_t> from;

  // Twice as many groups as candidates that stay are enough to single these out nearly alone.
  Scratch(const TablesView& t, std::size_t rows, const Effort& effort)
      : unary(rows * t.m * t.lines),
        costs(effort.beam * t.lines),
        least(effort.beam * t.lines / kBlockLines),
        groups(2 * ((effort.beam + kLine - 1) / kLine)),
        prefixes(rows),
        unchanged(rows * effort.icm_starts),
        cost(rows * effort.beam),
        codes(rows * effort.beam * kCodeStride),
        former(rows * effort.beam * kCodeStride),
        codeword(effort.beam),
        from(effort.beam) {}

  Workspace view() {
    return {unary.data(),    costs.data(),     least.data(), groups.data(), groups.size(),
            prefixes.data(), unchanged.data(), cost.data(),  codes.data(),  former.data(),
            codeword.data(), from.data()};
  }
};

}  // namespace

Columns::Columns(const float* y_KD, std::size_t k, std::size_t d)
    : k_(k), d_(d), columns_(transposed(y_KD, k, d)) {}

void Columns::inner_products(const float* x_ND, float* out_NK, std::size_t n, std::size_t threads,
                             const EncodingLevel& level) const {
  if (n == 0 || k_ == 0) return;
  const std::size_t lines = lines_for(k_);
  const std::size_t rows = rows_at_a_time(n, threads, 1);
  auto results = buffers<Line>(n, rows, threads, std::min(n, rows) * lines);
  for_rows(n, rows, results.size(), [&](std::size_t first, std::size_t last, std::size_t thread) {
    Line* result = results[thread].data();
    level.multiply(x_ND + first * d_, columns_.data(), result, last - first, lines, d_);
    for (std::size_t r = first; r < last; ++r) {
      std::memcpy(out_NK + r * k_, result + (r - first) * lines, k_ * sizeof(float));
    }
  });
}

EncodingTables::EncodingTables(const float* codebooks_MKD, std::size_t m, std::size_t k,
                               std::size_t d, std::size_t threads, const EncodingLevel& level)
    : level_(level),
      m_(m),
      k_(k),
      d_(d),
      lines_(lines_for(k)),
      columns_(m * lines_ * d),
      norm_(m * lines_),
      pair_(m * m * k * lines_) {
  for (std::size_t j = 0; j < m; ++j) {
    const std::vector<Line> columns = transposed(codebooks_MKD + j * k * d, k, d);
    std::copy(columns.begin(), columns.end(), columns_.begin() + j * lines_ * d);
  }
  const std::size_t rows = rows_at_a_time(m * k, threads, 1);
  auto results = buffers<Line>(m * k, rows, threads, std::min(m * k, rows) * m * lines_);
  for_rows(m * k, rows, results.size(),
           [&](std::size_t first, std::size_t last, std::size_t thread) {
    Line* result = results[thread].data();
    level.multiply(codebooks_MKD + first * d, columns_.data(), result, last - first, m * lines_, d);
    for (std::size_t i = first; i < last; ++i) {
      for (std::size_t to = 0; to < m; ++to, result += lines_) {
        Line* pair = pair_.data() + (to * m * k + i) * lines_;
        for (std::size_t line = 0; line < lines_; ++line) {
          for (std::size_t l = 0; l < kLine; ++l) {
            pair[line].value[l] = 2.0F * result[line].value[l];
          }
        }
      }
    }
  });
  for (std::size_t j = 0; j < m; ++j) {
    for (std::size_t c = 0; c < lines_ * kLine; ++c) {
      const Line* own = pair_.data() + ((j * m + j) * k + std::min(c, k - 1)) * lines_;
      norm_[j * lines_ + c / kLine].value[c % kLine] =
          c < k ? own[c / kLine].value[c % kLine] / 2.0F : std::numeric_limits<float>::infinity();
    }
  }
}

void EncodingTables::encode(const float* x_ND, std::uint8_t* codes_NM, std::size_t n,
                            Effort effort, std::size_t threads) const {
  if (n == 0) return;
  // Without a round the best code is the cheapest already.
  effort.icm_starts = effort.icm_rounds == 0 ? 1 : std::min(effort.icm_starts, effort.beam);
  const TablesView view{m_, k_, lines_, norm_.data(), pair_.data()};
  const std::size_t rows = rows_at_a_time(n, threads, effort.beam);
  auto scratch = std::vector<Scratch>(std::min(threads, (n + rows - 1) / rows),
                                      Scratch(view, std::min(n, rows), effort));
  for_rows(n, rows, scratch.size(), [&](std::size_t first, std::size_t last, std::size_t thread) {
    const Workspace workspace = scratch[thread].view();
    level_.multiply(x_ND + first * d_, columns_.data(), workspace.unary, last - first, m_ * lines_,
                   d_);
    level_.encode(view, workspace, codes_NM + first * m_, last - first, effort);
  });
}

}  // namespace spherequant

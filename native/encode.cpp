#include "encode.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "threads.h"

// The same source compiled once for each width, chosen when the module is loaded. Only the width
// differs: the order of operations is in the source, and -ffp-contract=off keeps products and sums
// apart.
#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__GLIBC__)
#define SPHEREQUANT_WIDTHS __attribute__((target_clones("default", "avx2", "avx512f")))
#else
#define SPHEREQUANT_WIDTHS
#endif
// Inlined into each clone, to be compiled at its width.
#define SPHEREQUANT_INLINE inline __attribute__((always_inline))

namespace spherequant {
namespace {

// A line in registers: the vector type of GCC and Clang, split where registers are narrower.
typedef float Lanes __attribute__((vector_size(kLine * sizeof(float))));

SPHEREQUANT_INLINE void load(Lanes& lanes, const Line& line) {
  std::memcpy(&lanes, line.value, sizeof(Lanes));
}

SPHEREQUANT_INLINE void store(Line& line, const Lanes& lanes) {
  std::memcpy(line.value, &lanes, sizeof(Lanes));
}

constexpr std::size_t kTile = 8;          // rows whose running sums stay in registers together
constexpr std::size_t kRowsAtATime = 64;  // rows a thread takes at once
constexpr std::size_t kLeastLines = 4;    // lines of least costs, enough for a beam of 16
constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::size_t lines_for(std::size_t columns) { return (columns + kLine - 1) / kLine; }

// At least 1, and no more than there are ranges of rows.
std::size_t useful_threads(std::size_t n, std::size_t threads) {
  return std::max<std::size_t>(1, std::min(threads, (n + kRowsAtATime - 1) / kRowsAtATime));
}

// Calls work(first, last, thread) for consecutive ranges that cover 0..n-1. Rows are independent,
// so which thread takes which range does not matter.
template <class Work>
void for_rows(std::size_t n, std::size_t threads, const Work& work) {
  const std::size_t ranges = (n + kRowsAtATime - 1) / kRowsAtATime;
  for_each_task(ranges, threads, [&](std::size_t i, std::size_t thread) {
    work(i * kRowsAtATime, std::min(n, (i + 1) * kRowsAtATime), thread);
  });
}

// y_KD as columns: [D, lines], padded with zeros.
std::vector<Line> transposed(const float* y_KD, std::size_t k, std::size_t d) {
  const std::size_t lines = lines_for(k);
  std::vector<Line> columns(d * lines, Line{});
  for (std::size_t c = 0; c < k; ++c) {
    for (std::size_t i = 0; i < d; ++i) columns[i * lines + c / kLine].value[c % kLine] = y_KD[c * d + i];
  }
  return columns;
}

// Inner products of R rows with the 16 columns of one line.
template <std::size_t R>
SPHEREQUANT_INLINE void multiply_tile(const float* x, const Line* column, Line* out,
                                      std::size_t lines, std::size_t d) {
  Lanes sum[R] = {};
  for (std::size_t i = 0; i < d; ++i) {
    Lanes y;
    load(y, column[i * lines]);
    for (std::size_t r = 0; r < R; ++r) sum[r] += x[r * d + i] * y;
  }
  for (std::size_t r = 0; r < R; ++r) store(out[r * lines], sum[r]);
}

// out[rows, lines] from x[rows, D] and columns[D, lines].
SPHEREQUANT_WIDTHS
void multiply(const float* x, const Line* columns, Line* out, std::size_t rows, std::size_t lines,
              std::size_t d) {
  std::size_t r = 0;
  for (; r + kTile <= rows; r += kTile) {
    for (std::size_t j = 0; j < lines; ++j) {
      multiply_tile<kTile>(x + r * d, columns + j, out + r * lines + j, lines, d);
    }
  }
  for (; r < rows; ++r) {
    for (std::size_t j = 0; j < lines; ++j) {
      multiply_tile<1>(x + r * d, columns + j, out + r * lines + j, lines, d);
    }
  }
}

// The best `capacity` candidates so far, ascending. A candidate enters only if its cost is strictly
// lower than the threshold, and stands behind equal costs: offered in ascending (prefix, codeword),
// ties go to the lower prefix, then to the lower codeword.
struct Selection {
  std::vector<float> cost;
  std::vector<std::uint16_t> prefix;
  std::vector<std::uint8_t> codeword;
  std::size_t size = 0;
  std::size_t capacity = 0;
  float threshold = kInfinity;

  explicit Selection(std::size_t beam) : cost(beam), prefix(beam), codeword(beam) {}

  // At least `room` candidates must be known to lie below `limit`, or limit be infinite.
  void start(std::size_t room, float limit) {
    size = 0;
    capacity = room;
    threshold = limit;
  }

  void offer(float new_cost, std::size_t from, std::size_t c) {
    std::size_t i = size < capacity ? size++ : size - 1;
    for (; i > 0 && cost[i - 1] > new_cost; --i) {
      cost[i] = cost[i - 1];
      prefix[i] = prefix[i - 1];
      codeword[i] = codeword[i - 1];
    }
    cost[i] = new_cost;
    prefix[i] = static_cast<std::uint16_t>(from);
    codeword[i] = static_cast<std::uint8_t>(c);
    if (size == capacity) threshold = cost[size - 1];
  }
};

// What one thread writes while it encodes.
struct Scratch {
  std::vector<Line> unary;           // [kRowsAtATime, M * lines]
  std::vector<Line> costs;           // [beam, lines]: of every candidate at one codebook
  std::vector<Line> least;           // [groups]: a least cost in each lane, see limit_on
  Selection selection;
  std::vector<std::uint8_t> codes;   // [beam, M]: the prefixes that stay
  std::vector<std::uint8_t> former;  // [beam, M]: those they go on from
  std::vector<float> cost;           // [beam]

  Scratch(std::size_t m, std::size_t lines, std::size_t beam)
      : unary(kRowsAtATime * m * lines),
        costs(beam * lines),
        least(std::max<std::size_t>(kLeastLines, beam / 4)),
        selection(beam),
        codes(beam * m),
        former(beam * m),
        cost(beam) {}
};

// The tables by name, for the loops below.
struct View {
  std::size_t m, k, d, lines;
  const Line* norm;
  const Line* pair;

  // pair[from, c, to, :]
  SPHEREQUANT_INLINE const Line* row(std::size_t from, std::size_t c, std::size_t to) const {
    return pair + ((from * k + c) * m + to) * lines;
  }
};

SPHEREQUANT_INLINE bool any_below(const Lanes& values, float threshold) {
  const auto below = values < threshold;
  typedef long long Part __attribute__((vector_size(16)));
  Part part[sizeof(Lanes) / sizeof(Part)];
  std::memcpy(part, &below, sizeof(Lanes));
  const Part any = (part[0] | part[1]) | (part[2] | part[3]);
  return (any[0] | any[1]) != 0;
}

// Adds line i of each row, in order.
SPHEREQUANT_INLINE void add_rows(Lanes& cost, const Line* const* rows, std::size_t count,
                                 std::size_t i) {
  for (std::size_t j = 0; j < count; ++j) {
    Lanes row;
    load(row, rows[j][i]);
    cost += row;
  }
}

// A number that at least `room` candidates lie below. The candidates are dealt into groups, the
// least of each is kept as costs are computed, and the room-th smallest of those is the cost of
// one candidate with room - 1 others at or below it.
SPHEREQUANT_INLINE float limit_on(Line* least, std::size_t groups, std::size_t room) {
  float* values = reinterpret_cast<float*>(least);
  const std::size_t count = groups * kLine;
  if (room > count) return kInfinity;
  std::nth_element(values, values + (room - 1), values + count);
  return std::nextafter(values[room - 1], kInfinity);
}

SPHEREQUANT_INLINE void beam_search(const View& t, const Line* unary, std::size_t beam,
                                    Scratch& s) {
  std::size_t prefixes = 1;
  s.cost[0] = 0.0F;
  Line* const costs = s.costs.data();
  Line* const least_lines = s.least.data();
  const std::size_t groups = s.least.size();
  for (std::size_t m = 0; m < t.m; ++m) {
    std::fill_n(reinterpret_cast<float*>(least_lines), groups * kLine, kInfinity);
    std::size_t group = 0;
    for (std::size_t b = 0; b < prefixes; ++b) {
      const Line* rows[EncodingTables::kMaxCodebooks];
      for (std::size_t j = 0; j < m; ++j) rows[j] = t.row(j, s.codes[b * t.m + j], m);
      const Line* own = unary + m * t.lines;
      const float before = s.cost[b];
      for (std::size_t i = 0; i < t.lines; ++i) {
        Lanes cost;
        load(cost, own[i]);
        add_rows(cost, rows, m, i);
        cost = before + cost;
        store(costs[b * t.lines + i], cost);
        Lanes least;
        load(least, least_lines[group]);
        least = cost < least ? cost : least;  // a cost that is not a number never enters
        store(least_lines[group], least);
        if (++group == groups) group = 0;
      }
    }

    const std::size_t room = std::min(beam, prefixes * t.k);
    s.selection.start(room, limit_on(least_lines, groups, room));
    for (std::size_t b = 0; b < prefixes; ++b) {
      for (std::size_t i = 0; i < t.lines; ++i) {
        const Line& line = costs[b * t.lines + i];
        Lanes cost;
        load(cost, line);
        if (!any_below(cost, s.selection.threshold)) continue;
        for (std::size_t l = 0; l < kLine; ++l) {
          if (line.value[l] < s.selection.threshold) {
            s.selection.offer(line.value[l], b, i * kLine + l);
          }
        }
      }
    }
    // Costs that overflowed to infinity are never offered; a prefix of zeros stands in for them.
    if (s.selection.size == 0) s.selection.offer(kInfinity, 0, 0);

    std::swap(s.codes, s.former);
    prefixes = s.selection.size;
    for (std::size_t b = 0; b < prefixes; ++b) {
      const std::uint8_t* from = s.former.data() + s.selection.prefix[b] * t.m;
      std::copy(from, from + m, s.codes.data() + b * t.m);
      s.codes[b * t.m + m] = s.selection.codeword[b];
      s.cost[b] = s.selection.cost[b];
    }
  }
}

// One visit of codebook m: true if its codeword changed.
SPHEREQUANT_INLINE bool choose_again(const View& t, const Line* unary, std::uint8_t* code,
                                     std::size_t m) {
  const Line* rows[EncodingTables::kMaxCodebooks];
  std::size_t others = 0;
  for (std::size_t j = 0; j < t.m; ++j) {
    if (j != m) rows[others++] = t.row(j, code[j], m);
  }
  const Line* own = unary + m * t.lines;
  const std::size_t old = code[m];
  std::size_t best = old;
  Lanes cost;
  load(cost, own[old / kLine]);
  add_rows(cost, rows, others, old / kLine);
  float least = cost[old % kLine];
  for (std::size_t i = 0; i < t.lines; ++i) {
    load(cost, own[i]);
    add_rows(cost, rows, others, i);
    if (!any_below(cost, least)) continue;
    for (std::size_t l = 0; l < kLine; ++l) {
      if (cost[l] < least) {
        least = cost[l];
        best = i * kLine + l;
      }
    }
  }
  code[m] = static_cast<std::uint8_t>(best);
  return best != old;
}

SPHEREQUANT_WIDTHS
void encode_rows(const View& t, std::uint8_t* codes, std::size_t rows, std::size_t beam,
                 std::size_t icm_rounds, Scratch& s) {
  const std::size_t width = t.m * t.lines;
  for (std::size_t r = 0; r < rows; ++r) {
    Line* unary = s.unary.data() + r * width;
    for (std::size_t i = 0; i < width; ++i) {
      for (std::size_t l = 0; l < kLine; ++l) {
        unary[i].value[l] = t.norm[i].value[l] - 2.0F * unary[i].value[l];
      }
    }
    beam_search(t, unary, beam, s);
    std::uint8_t* code = s.codes.data();
    for (std::size_t round = 0; round < icm_rounds; ++round) {
      bool changed = false;
      for (std::size_t m = 0; m < t.m; ++m) changed |= choose_again(t, unary, code, m);
      if (!changed) break;
    }
    std::copy(code, code + t.m, codes + r * t.m);
  }
}

}  // namespace

void inner_products(const float* x_ND, const float* y_KD, float* out_NK, std::size_t n,
                    std::size_t k, std::size_t d, std::size_t threads) {
  if (n == 0 || k == 0) return;
  const std::size_t lines = lines_for(k);
  const std::vector<Line> columns = transposed(y_KD, k, d);
  threads = useful_threads(n, threads);
  std::vector<std::vector<Line>> results(threads,
                                         std::vector<Line>(std::min(n, kRowsAtATime) * lines));
  for_rows(n, threads, [&](std::size_t first, std::size_t last, std::size_t thread) {
    Line* result = results[thread].data();
    multiply(x_ND + first * d, columns.data(), result, last - first, lines, d);
    for (std::size_t r = first; r < last; ++r) {
      std::memcpy(out_NK + r * k, result + (r - first) * lines, k * sizeof(float));
    }
  });
}

EncodingTables::EncodingTables(const float* codebooks_MKD, std::size_t m, std::size_t k,
                               std::size_t d, std::size_t threads)
    : m_(m),
      k_(k),
      d_(d),
      lines_(lines_for(k)),
      columns_(d * m * lines_, Line{}),
      norm_(m * lines_, Line{}),
      pair_(m * k * m * lines_, Line{}) {
  for (std::size_t j = 0; j < m; ++j) {
    for (std::size_t c = 0; c < k; ++c) {
      const float* codeword = codebooks_MKD + (j * k + c) * d;
      for (std::size_t i = 0; i < d; ++i) {
        columns_[(i * m + j) * lines_ + c / kLine].value[c % kLine] = codeword[i];
      }
    }
  }
  for_rows(m * k, threads, [&](std::size_t first, std::size_t last, std::size_t) {
    Line* rows = pair_.data() + first * m * lines_;
    multiply(codebooks_MKD + first * d, columns_.data(), rows, last - first, m * lines_, d);
  });
  for (std::size_t j = 0; j < m; ++j) {
    for (std::size_t c = 0; c < lines_ * kLine; ++c) {
      norm_[j * lines_ + c / kLine].value[c % kLine] =
          c < k ? pair_[((j * k + c) * m + j) * lines_ + c / kLine].value[c % kLine] : kInfinity;
    }
  }
  for (Line& line : pair_) {
    for (float& value : line.value) value *= 2.0F;
  }
}

void EncodingTables::encode(const float* x_ND, std::uint8_t* codes_NM, std::size_t n,
                            std::size_t beam, std::size_t icm_rounds, std::size_t threads) const {
  if (n == 0) return;
  const View view{m_, k_, d_, lines_, norm_.data(), pair_.data()};
  // Allocated here, so that no thread can run out of memory where nobody would catch it.
  threads = useful_threads(n, threads);
  std::vector<Scratch> scratch(threads, Scratch(m_, lines_, beam));
  for_rows(n, threads, [&](std::size_t first, std::size_t last, std::size_t thread) {
    Scratch& s = scratch[thread];
    multiply(x_ND + first * d_, columns_.data(), s.unary.data(), last - first, m_ * lines_, d_);
    encode_rows(view, codes_NM + first * m_, last - first, beam, icm_rounds, s);
  });
}

}  // namespace spherequant

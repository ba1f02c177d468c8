// Encoding of a tile of rows, for the files of one level each (see levels.h).
//
// All rows of a tile go through one codebook before any goes on to the next: what is read of the
// pair table meanwhile, m K^2 floats, stays in cache.
#pragma once

#include "encode/lanes.h"
#include "encode/levels.h"

namespace spherequant {
namespace {

constexpr float kHighest = __FLT_MAX__;
constexpr float kInfinity = __builtin_huge_valf();
constexpr std::size_t kMaxCodebooks = kCodeStride;
constexpr std::size_t kBlockLanes = kBlockLines * kLanesOfLine;  // registers of a block of columns

// Rows and registers of columns whose running sums stay in registers together.
#if defined(__AVX512F__)
constexpr std::size_t kTileRows = 8;
constexpr std::size_t kTileLanes = 2;
#elif defined(__aarch64__)
constexpr std::size_t kTileRows = 6;
constexpr std::size_t kTileLanes = 4;
#else
constexpr std::size_t kTileRows = 6;
constexpr std::size_t kTileLanes = 2;
#endif

// Inner products of R rows with C registers of columns; a line of columns goes on for all d.
template <std::size_t R, std::size_t C>
inline void multiply_tile(const float* x, const Line* columns, std::size_t first, Line* out,
                          std::size_t lines, std::size_t d) {
  const float* column[C];
  for (std::size_t j = 0; j < C; ++j) {
    column[j] = columns[(first + j) / kLanesOfLine * d].value + (first + j) % kLanesOfLine * W;
  }
  Lanes sum[R][C] = {};
  for (std::size_t i = 0; i < d; ++i) {
    Lanes y[C];
    for (std::size_t j = 0; j < C; ++j) y[j] = load(column[j] + i * kLine);
    for (std::size_t r = 0; r < R; ++r) {
      for (std::size_t j = 0; j < C; ++j) sum[r][j] = fused(x[r * d + i], y[j], sum[r][j]);
    }
  }
  for (std::size_t r = 0; r < R; ++r) {
    for (std::size_t j = 0; j < C; ++j) store(out[r * lines].value + (first + j) * W, sum[r][j]);
  }
}

void multiply(const float* x, const Line* columns, Line* out, std::size_t rows, std::size_t lines,
              std::size_t d) {
  const std::size_t whole = rows - rows % kTileRows;
  for (std::size_t j = 0; j < lines * kLanesOfLine; j += kTileLanes) {
    for (std::size_t r = 0; r < whole; r += kTileRows) {
      multiply_tile<kTileRows, kTileLanes>(x + r * d, columns, j, out + r * lines, lines, d);
    }
  }
  for (std::size_t j = 0; j < lines * kLanesOfLine; j += kBlockLanes) {
    for (std::size_t r = whole; r < rows; ++r) {
      multiply_tile<1, kBlockLanes>(x + r * d, columns, j, out + r * lines, lines, d);
    }
  }
}

// own + rows[0] + rows[1] + ..., for the block of columns from line `first` on.
inline void sum_rows(const Line* own, const Line* const* rows, std::size_t count,
                     std::size_t first, Lanes (&sums)[kBlockLanes]) {
  for (std::size_t i = 0; i < kBlockLanes; ++i) sums[i] = load(own[first].value + i * W);
  for (std::size_t j = 0; j < count; ++j) {
    const float* row = rows[j][first].value;
    for (std::size_t i = 0; i < kBlockLanes; ++i) sums[i] += load(row + i * W);
  }
}

// The lower of what `least` holds and of the costs, for each of the 16 lanes.
inline void keep_least(Line& least, const Lanes (&costs)[kBlockLanes]) {
  for (std::size_t l = 0; l < kLanesOfLine; ++l) {
    Lanes lanes = load(least.value + l * W);
    for (std::size_t i = l; i < kBlockLanes; i += kLanesOfLine) lanes = least_of(costs[i], lanes);
    store(least.value + l * W, lanes);
  }
}

// out[g] = the lower of lines g, g + groups, g + 2 groups, ..., for each lane.
inline void least_of_groups(const Line* lines, std::size_t count, Line* out, std::size_t groups) {
  for (std::size_t g = 0; g < groups; ++g) {
    for (std::size_t l = 0; l < kLine; l += W) {
      Lanes least = kInfinity - Lanes{};
      for (std::size_t i = g; i < count; i += groups) {
        least = least_of(load(lines[i].value + l), least);
      }
      store(out[g].value + l, least);
    }
  }
}

inline void fill(Line* lines, std::size_t count, float value) {
  for (std::size_t i = 0; i < count; ++i) {
    for (float& lane : lines[i].value) lane = value;
  }
}

// A finite number that at least `room` of the values, if so many are finite, do not exceed: the
// room-th smallest of them.
inline float limit_on(const Line* values, std::size_t lines, std::size_t room) {
  typedef std::int32_t Counts __attribute__((vector_size(W * sizeof(float))));
  const float* each = values->value;
  const std::size_t size = lines * kLine;
  Lanes limits = kHighest - Lanes{};
  for (std::size_t first = 0; first < size; first += 2 * W) {
    const Lanes own[2] = {load(each + first), load(each + first + W)};
    Counts below[2] = {};  // how many values are not greater
    for (std::size_t i = 0; i < size; ++i) {
      const Lanes value = each[i] - Lanes{};
      below[0] -= value <= own[0];
      below[1] -= value <= own[1];
    }
    for (std::size_t j = 0; j < 2; ++j) {
      const Lanes enough = below[j] >= static_cast<std::int32_t>(room) ? own[j] : kHighest - Lanes{};
      limits = least_of(enough, limits);
    }
  }
  float limit = kHighest;
  for (std::size_t l = 0; l < W; ++l) limit = limits[l] < limit ? limits[l] : limit;
  return limit;
}

// The best `capacity` candidates so far, ascending. A candidate stands behind equal costs: offered
// in ascending (prefix, codeword), ties go to the lower prefix, then to the lower codeword.
struct Selection {
  float* cost;
  std::uint16_t* prefix;
  std::uint8_t* codeword;
  std::size_t capacity;
  std::size_t size = 0;

  void offer(float new_cost, std::size_t from, std::size_t c) {
    std::size_t i = size;
    if (size < capacity) {
      ++size;
    } else if (new_cost < cost[size - 1]) {
      --i;
    } else {
      return;
    }
    for (; i > 0 && cost[i - 1] > new_cost; --i) {
      cost[i] = cost[i - 1];
      prefix[i] = prefix[i - 1];
      codeword[i] = codeword[i - 1];
    }
    cost[i] = new_cost;
    prefix[i] = static_cast<std::uint16_t>(from);
    codeword[i] = static_cast<std::uint8_t>(c);
  }
};

// Calls act(i) for the set bits of a word, ascending.
template <class Act>
inline void for_each_bit(std::uint64_t bits, const Act& act) {
  for (; bits != 0; bits &= bits - 1) act(static_cast<std::size_t>(__builtin_ctzll(bits)));
}

// Offers the candidates that cost at most `limit`, ascending. Which blocks and which of their 64
// costs these are is found without branches, that mostly would be guessed wrong.
inline void offer_all(const Line* costs, const Line* least, std::size_t prefixes,
                      std::size_t blocks, float limit, Selection& selection) {
  const std::size_t count = prefixes * blocks;
  for (std::size_t first = 0; first < count; first += 64) {
    const std::size_t some = count - first < 64 ? count - first : 64;
    std::uint64_t hit = 0;
    for (std::size_t i = 0; i < some; ++i) {
      hit |= static_cast<std::uint64_t>(at_most(least[first + i], limit) != 0) << i;
    }
    for_each_bit(hit, [&](std::size_t i) {
      const std::size_t b = (first + i) / blocks;
      const std::size_t block = (first + i) % blocks;
      const Line* lines = costs + (first + i) * kBlockLines;
      std::uint64_t below = 0;
      for (std::size_t j = 0; j < kBlockLines; ++j) {
        below |= static_cast<std::uint64_t>(at_most(lines[j], limit)) << (j * kLine);
      }
      for_each_bit(below, [&](std::size_t c) {
        const float cost = lines[c / kLine].value[c % kLine];
        selection.offer(cost, b, block * kBlockLines * kLine + c);
      });
    });
  }
}

// The costs of all candidates of one row at codebook m.
inline void cost_candidates(const TablesView& t, const Workspace& w, const Line* own,
                            const float* cost, const std::uint8_t* codes, std::size_t prefixes,
                            std::size_t m) {
  const std::size_t blocks = t.lines / kBlockLines;
  for (std::size_t b = 0; b < prefixes; ++b) {
    const Line* rows[kMaxCodebooks];
    for (std::size_t j = 0; j < m; ++j) {
      rows[j] = t.pair + ((m * t.m + j) * t.k + codes[b * kCodeStride + j]) * t.lines;
    }
    for (std::size_t i = 0; i < blocks; ++i) {
      Lanes sums[kBlockLanes];
      sum_rows(own, rows, m, i * kBlockLines, sums);
      float* out = w.costs[b * t.lines + i * kBlockLines].value;
      for (std::size_t l = 0; l < kBlockLanes; ++l) {
        sums[l] = cost[b] + sums[l];
        store(out + l * W, sums[l]);
      }
      Line& least = w.least[b * blocks + i];
      fill(&least, 1, kInfinity);
      keep_least(least, sums);
    }
  }
}

// One row's prefixes go on to codebook m; the `wanted` best stay.
inline void extend(const TablesView& t, const Workspace& w, std::size_t r, std::size_t m,
                   std::size_t beam, std::size_t wanted) {
  const std::size_t blocks = t.lines / kBlockLines;
  const std::size_t prefixes = w.prefixes[r];
  float* cost = w.cost + r * beam;
  const std::uint8_t* former = w.former + r * beam * kCodeStride;
  std::uint8_t* codes = w.codes + r * beam * kCodeStride;
  Line* own = w.unary + (r * t.m + m) * t.lines;
  for (std::size_t i = 0; i < t.lines; ++i) {
    for (std::size_t l = 0; l < kLine; ++l) {
      own[i].value[l] = t.norm[m * t.lines + i].value[l] - 2.0F * own[i].value[l];
    }
  }
  cost_candidates(t, w, own, cost, former, prefixes, m);

  const std::size_t candidates = prefixes * t.k;
  const std::size_t room = wanted < candidates ? wanted : candidates;
  least_of_groups(w.least, prefixes * blocks, w.groups, w.group_lines);
  Selection selection{cost, w.from, w.codeword, room};
  offer_all(w.costs, w.least, prefixes, blocks, limit_on(w.groups, w.group_lines, room), selection);
  // Costs that overflowed to infinity are never offered; a prefix of zeros stands in for them.
  if (selection.size == 0) selection.offer(kInfinity, 0, 0);
  for (std::size_t b = 0; b < selection.size; ++b) {
    __builtin_memcpy(codes + b * kCodeStride, former + w.from[b] * kCodeStride, kCodeStride);
    codes[b * kCodeStride + m] = w.codeword[b];
  }
  w.prefixes[r] = selection.size;
}

// One visit of codebook m: true if its codeword changed.
inline bool choose_again(const TablesView& t, const Workspace& w, const Line* unary,
                         std::uint8_t* code, std::size_t m) {
  const Line* rows[kMaxCodebooks];
  std::size_t others = 0;
  for (std::size_t j = 0; j < t.m; ++j) {
    if (j != m) rows[others++] = t.pair + ((m * t.m + j) * t.k + code[j]) * t.lines;
  }
  Line least;
  fill(&least, 1, kInfinity);
  for (std::size_t i = 0; i < t.lines; i += kBlockLines) {
    Lanes sums[kBlockLanes];
    sum_rows(unary + m * t.lines, rows, others, i, sums);
    for (std::size_t l = 0; l < kBlockLanes; ++l) store(w.costs[i].value + l * W, sums[l]);
    keep_least(least, sums);
  }
  const float* costs = w.costs->value;
  float lowest = costs[code[m]];
  const float old = lowest;
  for (const float value : least.value) lowest = value < lowest ? value : lowest;
  if (!(lowest < old)) return false;
  std::size_t c = 0;
  while (costs[c] != lowest) ++c;
  code[m] = static_cast<std::uint8_t>(c);
  return true;
}

// The cost of a code, as the beam search computes it.
inline float cost_of(const TablesView& t, const Line* unary, const std::uint8_t* code) {
  float cost = 0.0F;
  for (std::size_t m = 0; m < t.m; ++m) {
    const std::size_t line = code[m] / kLine;
    const std::size_t lane = code[m] % kLine;
    float step = unary[m * t.lines + line].value[lane];
    for (std::size_t j = 0; j < m; ++j) {
      step += t.pair[((m * t.m + j) * t.k + code[j]) * t.lines + line].value[lane];
    }
    cost += step;
  }
  return cost;
}

inline bool equal(const std::uint8_t* a, const std::uint8_t* b) {
  std::uint64_t x[2], y[2];
  __builtin_memcpy(x, a, sizeof(x));
  __builtin_memcpy(y, b, sizeof(y));
  return ((x[0] ^ y[0]) | (x[1] ^ y[1])) == 0;
}

// Leaves out those codes of one row that have become equal to one before them: both would go on
// alike. Returns how many are left, in their order.
inline std::size_t without_repeated(std::uint8_t* codes, std::size_t* unchanged,
                                    std::size_t count) {
  std::size_t kept = 0;
  for (std::size_t s = 0; s < count; ++s) {
    bool repeated = false;
    for (std::size_t i = 0; i < kept && !repeated; ++i) {
      repeated = equal(codes + i * kCodeStride, codes + s * kCodeStride);
    }
    if (repeated) continue;
    __builtin_memmove(codes + kept * kCodeStride, codes + s * kCodeStride, kCodeStride);
    unchanged[kept] = unchanged[s];
    ++kept;
  }
  return kept;
}

// ICM on each of the codes in w.former, all rows of the tile in step. A codeword chosen while the
// others were as they are would be chosen again: a code is done when the others of the one that
// changed last, or all, were visited in vain.
inline void improve(const TablesView& t, const Workspace& w, std::size_t rows,
                    const Effort& effort) {
  bool active = true;
  for (std::size_t round = 0; round < effort.icm_rounds && active; ++round) {
    active = false;
    for (std::size_t m = 0; m < t.m; ++m) {
      for (std::size_t r = 0; r < rows; ++r) {
        const Line* unary = w.unary + r * t.m * t.lines;
        std::uint8_t* codes = w.former + r * effort.beam * kCodeStride;
        std::size_t* unchanged = w.unchanged + r * effort.icm_starts;
        for (std::size_t s = 0; s < w.prefixes[r]; ++s) {
          if (unchanged[s] == t.m) continue;
          ++unchanged[s];
          // The visit that changes a codeword is the first of those in vain.
          if (choose_again(t, w, unary, codes + s * kCodeStride, m)) unchanged[s] = 1;
          active = active || unchanged[s] < t.m;
        }
      }
    }
    for (std::size_t r = 0; r < rows; ++r) {
      w.prefixes[r] = without_repeated(w.former + r * effort.beam * kCodeStride,
                                       w.unchanged + r * effort.icm_starts, w.prefixes[r]);
    }
  }
}

// The place of one row's code of least cost: the first, where costs are equal or no numbers.
inline std::size_t cheapest(const TablesView& t, const Workspace& w, std::size_t r,
                            std::size_t beam) {
  if (w.prefixes[r] == 1) return 0;
  const Line* unary = w.unary + r * t.m * t.lines;
  const std::uint8_t* codes = w.former + r * beam * kCodeStride;
  std::size_t best = 0;
  float least = cost_of(t, unary, codes);
  for (std::size_t s = 1; s < w.prefixes[r]; ++s) {
    const float cost = cost_of(t, unary, codes + s * kCodeStride);
    if (cost < least) {
      least = cost;
      best = s;
    }
  }
  return best;
}

void encode(const TablesView& t, Workspace w, std::uint8_t* codes, std::size_t rows,
            const Effort& effort) {
  for (std::size_t r = 0; r < rows; ++r) {
    w.prefixes[r] = 1;
    w.cost[r * effort.beam] = 0.0F;
  }
  for (std::size_t i = 0; i < rows * effort.icm_starts; ++i) w.unchanged[i] = 0;
  for (std::size_t m = 0; m < t.m; ++m) {
    const std::size_t wanted = m + 1 == t.m ? effort.icm_starts : effort.beam;
    for (std::size_t r = 0; r < rows; ++r) extend(t, w, r, m, effort.beam, wanted);
    std::uint8_t* former = w.former;
    w.former = w.codes;
    w.codes = former;
  }
  improve(t, w, rows, effort);
  for (std::size_t r = 0; r < rows; ++r) {
    const std::size_t best = cheapest(t, w, r, effort.beam);
    __builtin_memcpy(codes + r * t.m, w.former + (r * effort.beam + best) * kCodeStride, t.m);
  }
}

}  // namespace
}  // namespace spherequant

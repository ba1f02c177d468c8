// Runs every kernel on random input, compared with the plainest code that does the same. Built with
// sanitizers by test_sanitizers.py; exits with 1 at the first difference.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <span>
#include <vector>

#include "encode.h"
#include "ranking.h"
#include "scan/levels.h"
#include "scan/search.h"
#include "sparse.h"

using namespace spherequant;

namespace {

struct Item {
  float score;
  std::int64_t position;
};

std::vector<Item> brute_force(const std::vector<std::uint8_t>& codes, std::size_t n, std::size_t m,
                              std::size_t k, const float* lut, const std::vector<bool>& mask,
                              std::int64_t excluded, float least) {
  std::vector<Item> items;
  for (std::size_t i = 0; i < n; ++i) {
    float score = lut[codes[i * m]];
    for (std::size_t j = 1; j < m; ++j) score += lut[j * k + codes[i * m + j]];
    const auto position = static_cast<std::int64_t>(i);
    if (mask[i] && position != excluded && score >= least) items.push_back({score, position});
  }
  std::stable_sort(items.begin(), items.end(),
                   [](const Item& a, const Item& b) { return a.score > b.score; });
  return items;
}

std::unique_ptr<Layout> lay_out(const std::vector<std::uint8_t>& codes, std::size_t n,
                                std::size_t m, const Numbering& numbering, std::size_t k,
                                const BucketBooks* books) {
  LayoutBuilder builder(n, m, k, numbering, books);
  const std::size_t half = n / 2;
  if (builder.counting()) {
    builder.count(codes.data(), half);
    builder.count(codes.data() + half * m, n - half);
  }
  if (!builder.place(codes.data(), half, 2) || !builder.place(codes.data() + half * m, n - half, 2)) {
    std::puts("codes were not placed");
    std::exit(1);
  }
  return builder.finish();
}

void check_sparse(std::mt19937& random) {
  const std::size_t n = 1 + random() % 80, k = 1 + random() % 300, d = 1 + random() % 24;
  std::normal_distribution<float> normal;
  std::vector<float> x(n * d), y(k * d), out(n * k);
  for (float& value : x) value = normal(random);
  const std::size_t rarity = 1 + random() % 20;
  for (float& value : y) value = random() % rarity == 0 ? normal(random) : 0.0F;
  const SparseColumns columns(y.data(), k, d);
  for (const EncodingLevel* level : encoding_levels()) {
    columns.inner_products(x.data(), out.data(), n, 1 + random() % 3, *level);
    for (std::size_t r = 0; r < n; ++r) {
      for (std::size_t c = 0; c < k; ++c) {
        float sum = 0;
        for (std::size_t i = 0; i < d; ++i) sum = std::fma(x[r * d + i], y[c * d + i], sum);
        if (sum == out[r * k + c]) continue;
        std::printf("sparse %s: row %zu, column %zu of %zu, %zu, %zu\n", level->name, r, c, n, k, d);
        std::exit(1);
      }
    }
  }
}

void check_search(std::mt19937& random) {
  const auto below = [&](std::size_t bound) { return random() % bound; };
  const std::size_t n = below(4) == 0 ? below(70) : below(60000);
  const std::size_t m = 1 + below(16);
  const std::size_t k = 1 + below(256);
  const std::size_t results = 1 + below(below(3) == 0 ? 2000 : 20);
  const std::size_t queries = 1 + below(5);
  std::vector<std::uint8_t> codes(n * m);
  const std::size_t spread = 1 + below(k);
  for (std::uint8_t& code : codes) code = static_cast<std::uint8_t>(below(below(3) == 0 ? k : spread));
  std::vector<float> lut(queries * m * k);
  std::normal_distribution<float> normal;
  const bool coarse = below(2) == 0;
  for (float& value : lut) value = coarse ? std::round(normal(random)) : normal(random);
  std::vector<bool> mask(n, true);
  if (below(2) == 0) {
    for (std::size_t i = 0; i < n; ++i) mask[i] = below(3) == 0;
  }
  std::vector<std::uint64_t> bits((n + 63) / 64);
  for (std::size_t i = 0; i < n; ++i) bits[i / 64] |= std::uint64_t{mask[i]} << i % 64;
  std::vector<std::int64_t> excluded(queries);
  for (auto& position : excluded) position = static_cast<std::int64_t>(below(n + 1)) - 1;

  const BucketBooks books{below(m), 0};
  BucketBooks chosen = books;
  if (m > 1) chosen.second = (books.first + 1) % m;
  std::vector<float> codebooks(m * k * 3);
  for (float& value : codebooks) value = normal(random);
  std::vector<std::uint8_t> numbers(m * k);
  number_codewords(codebooks.data(), m, k, 3, 2, numbers.data());
  const auto flat = lay_out(codes, n, m, Numbering(numbers.data(), m, k), k, nullptr);
  const auto bucketed = lay_out(codes, n, m, Numbering(m, k), k, &chosen);
  SearchOptions options{.k = results};
  if (below(3) == 0) options.min_score = normal(random);
  options.threads = 1 + below(3);
  std::vector<const ByteScan*> levels(available_levels().begin(), available_levels().end());
  levels.push_back(nullptr);
  options.scan = levels[below(levels.size())];
  options.route = static_cast<Route>(below(3));
  for (const Layout* layout : {flat.get(), bucketed.get()}) {
    std::vector<std::uint64_t> slots(bits.size());
    layout->to_slots(bits.data(), slots.data());
    const auto few = layout->subset(slots.data());
    for (const Part part : {Part{layout, nullptr, slots.data()}, Part{few.get(), nullptr, nullptr}}) {
      std::vector<float> scores(queries * results);
      std::vector<std::int64_t> positions(queries * results);
      std::vector<std::uint64_t> visited(queries);
      search({&part, 1}, lut.data(), queries, excluded.data(), options, scores.data(),
             positions.data(), visited.data());
      for (std::size_t q = 0; q < queries; ++q) {
        const auto expected = brute_force(codes, n, m, k, lut.data() + q * m * k, mask,
                                          excluded[q], options.min_score);
        for (std::size_t i = 0; i < results; ++i) {
          const std::size_t at = q * results + i;
          const std::int64_t wanted = i < expected.size() ? expected[i].position : -1;
          if (positions[at] != wanted || (wanted >= 0 && scores[at] != expected[i].score)) {
            std::printf("n %zu m %zu k %zu results %zu query %zu rank %zu: %lld, not %lld\n", n, m,
                        k, results, q, i, static_cast<long long>(positions[at]),
                        static_cast<long long>(wanted));
            std::exit(1);
          }
        }
      }
    }
  }
}

std::shared_ptr<Layout> restored(const Layout& layout, std::mt19937* flipping) {
  const BucketBooks books = layout.books();
  LayoutImage image(layout.size(), layout.n_codebooks(), layout.n_codewords(), layout.numbering(),
                    layout.bucketed() ? &books : nullptr);
  std::ranges::copy(layout.blocks(), image.blocks().begin());
  std::ranges::copy(layout.order(), image.order().begin());
  std::ranges::copy(layout.starts(), image.starts().begin());
  if (flipping != nullptr) {
    const std::span<std::uint8_t> blocks = image.blocks();
    const std::size_t at = (*flipping)();
    if ((*flipping)() % 3 == 0 && !blocks.empty()) {
      blocks[at % blocks.size()] ^= static_cast<std::uint8_t>(1 + at % 255);
    }
    for (const std::span<std::uint32_t> numbers : {image.order(), image.starts()}) {
      if ((*flipping)() % 3 == 0 && !numbers.empty()) {
        numbers[at % numbers.size()] ^= 1U << (*flipping)() % 32;
      }
    }
  }
  return image.valid(2) ? image.layout() : nullptr;
}

// A layout comes back as it was; one that was changed is refused, or is one that can be searched.
void check_image(std::mt19937& random) {
  const std::size_t n = random() % 2000, m = 1 + random() % 4, k = 1 + random() % 20;
  std::vector<std::uint8_t> codes(n * m);
  for (std::uint8_t& code : codes) code = static_cast<std::uint8_t>(random() % k);
  std::vector<float> lut(m * k);
  std::normal_distribution<float> normal;
  for (float& value : lut) value = normal(random);
  std::vector<std::uint8_t> numbers(m * k);  // with gaps, from the last codeword down
  for (std::size_t c = 0; c < m * k; ++c) numbers[c] = static_cast<std::uint8_t>(255 - 3 * (c % k));
  const BucketBooks books{0, m > 1 ? std::size_t{1} : 0};
  for (const BucketBooks* chosen : {static_cast<const BucketBooks*>(nullptr), &books}) {
    const auto layout = lay_out(codes, n, m, Numbering(numbers.data(), m, k), k, chosen);
    const auto same = restored(*layout, nullptr);
    std::vector<std::uint8_t> read(n * m);
    if (same != nullptr) same->read(read.data());
    if (same == nullptr || read != codes) {
      std::printf("n %zu m %zu k %zu: not restored\n", n, m, k);
      std::exit(1);
    }
    for (int turn = 0; turn < 10; ++turn) {
      const auto changed = restored(*layout, &random);
      if (changed == nullptr) continue;
      const Part part{changed.get(), nullptr, nullptr};
      for (const Route route : {Route::kFlat, Route::kBuckets}) {
        const SearchOptions options{
            .k = 20, .threads = 2, .route = route, .scan = available_levels()[0]};
        std::vector<float> scores(20);
        std::vector<std::int64_t> positions(20);
        std::uint64_t visited = 0;
        search({&part, 1}, lut.data(), 1, nullptr, options, scores.data(), positions.data(),
               &visited);
      }
    }
  }
}

// Encodes sums of codewords that are orthogonal over codebooks: the best code of each is known.
void check_encode(std::mt19937& random) {
  const std::size_t m = 1 + random() % 4;
  const std::size_t k = 1 + random() % 40;
  const std::size_t n = random() % 300;
  const std::size_t d = m * k;
  std::vector<float> books(m * k * d);
  for (std::size_t c = 0; c < m * k; ++c) books[c * d + c] = 1.0F;
  const EncodingTables tables(books.data(), m, k, d, 2);
  std::vector<std::uint8_t> wanted(n * m);
  std::vector<float> x(n * d);
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t j = 0; j < m; ++j) {
      wanted[i * m + j] = static_cast<std::uint8_t>(random() % k);
      x[i * d + j * k + wanted[i * m + j]] = 1.0F;
    }
  }
  std::vector<std::uint8_t> codes(n * m);
  tables.encode(x.data(), codes.data(), n, {1 + random() % 20, random() % 4, 1 + random() % 9}, 2);
  if (codes != wanted) {
    std::printf("m %zu k %zu n %zu: encoded wrongly\n", m, k, n);
    std::exit(1);
  }
}

// Sums of few values, so that many items are tied; ties by counting, one after the other.
void check_ranking(std::mt19937& random) {
  const std::size_t n = random() % 300, m = 1 + random() % 4, k = 1 + random() % 9;
  std::vector<std::uint8_t> codes(n * m);
  for (std::uint8_t& code : codes) code = static_cast<std::uint8_t>(random() % k);
  std::vector<float> lut(m * k), scores(n), relevant;
  for (float& value : lut) value = static_cast<float>(random() % 5) - 2.0F;
  sum_tables(lut.data(), 1, m, k, codes.data(), n, scores.data());
  for (const Item& item :
       brute_force(codes, n, m, k, lut.data(), std::vector<bool>(n, true), -1, -1000.0F)) {
    if (scores[static_cast<std::size_t>(item.position)] != item.score) {
      std::printf("m %zu k %zu n %zu: summed wrongly\n", m, k, n);
      std::exit(1);
    }
  }
  std::sort(scores.begin(), scores.end());
  for (const float score : scores) {
    if (random() % 3 == 0) relevant.push_back(score);
  }
  const Ties ties = find_ties(scores.data(), n, relevant.data(), relevant.size());
  std::size_t tie = 0;
  bool wrong = false;
  for (std::size_t i = relevant.size(); i > 0; --i) {
    const float score = relevant[i - 1];
    if (i < relevant.size() && relevant[i] == score) continue;
    const auto above = [score](float other) { return other > score; };
    const auto equal = [score](float other) { return other == score; };
    wrong = wrong || tie == ties.before.size() ||
            ties.before[tie] != std::count_if(scores.begin(), scores.end(), above) ||
            ties.size[tie] != std::count_if(scores.begin(), scores.end(), equal) ||
            ties.relevant[tie] != std::count_if(relevant.begin(), relevant.end(), equal) ||
            ties.relevant_before[tie] != std::count_if(relevant.begin(), relevant.end(), above);
    if (wrong) break;
    ++tie;
  }
  const bool tied = std::unique(scores.begin(), scores.end()) != scores.end();
  if (wrong || tie != ties.before.size() || ties.any_tied != tied) {
    std::printf("n %zu, %zu relevant: other ties\n", n, relevant.size());
    std::exit(1);
  }
}

}  // namespace

int main(int count, char** arguments) {
  const int rounds = count > 1 ? std::atoi(arguments[1]) : 100;
  for (int round = 0; round < rounds; ++round) {
    std::mt19937 random(static_cast<std::mt19937::result_type>(round));
    check_search(random);
    check_image(random);
    check_encode(random);
    check_sparse(random);
    check_ranking(random);
  }
  std::printf("%d rounds\n", rounds);
}

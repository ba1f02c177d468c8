#include "scan/layout.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <new>

#include "threads.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace spherequant {
namespace {

constexpr std::size_t kHugePage = std::size_t{2} << 20;
constexpr std::size_t kRange = 16384;  // items that a thread writes at a time

}  // namespace

AlignedBytes::AlignedBytes(std::size_t size) : size_(size) {
  const bool large = size >= kHugePage;
  const std::size_t alignment = large ? kHugePage : kBlock;
  const std::size_t room = (std::max<std::size_t>(size, 1) + kBlock - 1) / kBlock * kBlock;
  const std::size_t whole = (room + alignment - 1) / alignment * alignment;  // aligned_alloc's rule
  auto* bytes = static_cast<std::uint8_t*>(std::aligned_alloc(alignment, whole));
  if (bytes == nullptr) throw std::bad_alloc();
  bytes_.reset(bytes);
#if defined(__linux__)
  // A wish, not a need: where it is refused, small pages do.
  if (large) (void)madvise(bytes, room / kHugePage * kHugePage, MADV_HUGEPAGE);
#endif
}

void AlignedBytes::Free::operator()(std::uint8_t* bytes) const { std::free(bytes); }

Layout::Layout(std::size_t n, std::size_t m, std::size_t k, const Numbering& numbering,
               const BucketBooks* books)
    : n_(n),
      m_(m),
      k_(k),
      positions_(n),
      numbering_(numbering),
      codes_((n + kBlock - 1) / kBlock * m * kBlock) {
  // Lanes behind the last item hold number 0, and are masked wherever candidates are read.
  if (n % kBlock != 0) std::memset(codes_.data() + n / kBlock * m * kBlock, 0, m * kBlock);
  if (books != nullptr) {
    books_ = *books;
    row_ = books->first == books->second ? 1 : k;
    starts_.assign(k * row_ + 1, 0);
    order_.resize(n);
  }
  arrange_lines();
}

void Layout::arrange_lines() {
  const auto of_buckets = [&](std::size_t j) {
    return bucketed() && (j == books_.first || j == books_.second);
  };
  for (std::size_t j = 0; j < m_; ++j) own_lines_ += !of_buckets(j);
  std::size_t own = 0;
  std::size_t shared = own_lines_;
  for (std::size_t j = 0; j < m_; ++j) {
    lines_[j] = static_cast<std::uint8_t>(of_buckets(j) ? shared++ : own++);
  }
}

std::size_t Layout::memory_bytes() const {
  return codes_.size() + order_.size() * sizeof(order_[0]) + starts_.size() * sizeof(starts_[0]);
}

void Layout::read(std::uint8_t* codes_NM) const {
  for (std::size_t slot = 0; slot < n_; ++slot) {
    const std::uint8_t* code = block(slot / kBlock) + slot % kBlock;
    std::uint8_t* to = codes_NM + position(slot) * m_;
    for (std::size_t j = 0; j < m_; ++j) to[j] = numbering_.codeword(j, code[lines_[j] * kBlock]);
  }
}

void Layout::to_slots(const std::uint64_t* by_position, std::uint64_t* by_slot) const {
  if (order_.empty()) {
    std::copy(by_position, by_position + n_blocks(), by_slot);
    return;
  }
  std::fill_n(by_slot, n_blocks(), std::uint64_t{0});
  for (std::size_t slot = 0; slot < n_; ++slot) {
    const std::uint32_t p = order_[slot];
    by_slot[slot / 64] |= (by_position[p / 64] >> (p % 64) & 1) << (slot % 64);
  }
}

std::unique_ptr<Layout> Layout::subset(const std::uint64_t* by_slot) const {
  std::vector<std::uint32_t> slots;
  for (std::size_t w = 0; w < n_blocks(); ++w) {
    for (std::uint64_t word = by_slot[w]; word != 0; word &= word - 1) {
      slots.push_back(static_cast<std::uint32_t>(w * 64 + std::countr_zero(word)));
    }
  }
  std::unique_ptr<Layout> result(new Layout(slots.size(), m_, k_, numbering_));
  result->positions_ = positions_;
  result->order_.resize(slots.size());
  for (std::size_t i = 0; i < slots.size(); ++i) {
    const std::uint8_t* from = block(slots[i] / kBlock) + slots[i] % kBlock;
    std::uint8_t* to = result->codes_.data() + i / kBlock * m_ * kBlock + i % kBlock;
    for (std::size_t j = 0; j < m_; ++j) {
      to[result->lines_[j] * kBlock] = from[lines_[j] * kBlock];
    }
    result->order_[i] = static_cast<std::uint32_t>(position(slots[i]));
  }
  return result;
}

LayoutBuilder::LayoutBuilder(std::size_t n, std::size_t m, std::size_t k,
                             const Numbering& numbering, const BucketBooks* books)
    : layout_(new Layout(n, m, k, numbering, books)) {
  if (books == nullptr) return;
  counting_ = n > 0;
  if (!counting_) start_placing();
}

std::size_t LayoutBuilder::bucket(const std::uint8_t* code) const {
  const BucketBooks books = layout_->books_;
  if (layout_->row_ == 1) return code[books.first];
  return code[books.first] * layout_->row_ + code[books.second];
}

void LayoutBuilder::count(const std::uint8_t* codes_NM, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) ++layout_->starts_[bucket(codes_NM + i * n_codebooks()) + 1];
  counted_ += n;
  counting_ = counted_ < size();
  if (!counting_) start_placing();
}

void LayoutBuilder::start_placing() {
  std::vector<std::uint32_t>& starts = layout_->starts_;
  for (std::size_t b = 1; b < starts.size(); ++b) starts[b] += starts[b - 1];
  next_.assign(starts.begin(), starts.end() - 1);
}

bool LayoutBuilder::place(const std::uint8_t* codes_NM, std::size_t n, std::size_t threads) {
  Layout& layout = *layout_;
  const std::size_t m = layout.m_;
  std::vector<std::uint32_t> slots;
  if (layout.bucketed()) {
    const std::vector<std::uint32_t> before = next_;
    slots.resize(n);
    for (std::size_t i = 0; i < n; ++i) {
      const std::size_t b = bucket(codes_NM + i * m);
      if (next_[b] == layout.starts_[b + 1]) {
        next_ = before;
        return false;
      }
      slots[i] = next_[b]++;
    }
    for (std::size_t i = 0; i < n; ++i) {
      layout.order_[slots[i]] = static_cast<std::uint32_t>(placed_ + i);
    }
  }
  for_each_task((n + kRange - 1) / kRange, threads, [&](std::size_t range, std::size_t) {
    const std::size_t last = std::min(n, (range + 1) * kRange);
    for (std::size_t i = range * kRange; i < last; ++i) {
      const std::size_t slot = slots.empty() ? placed_ + i : slots[i];
      std::uint8_t* to = layout.codes_.data() + slot / kBlock * m * kBlock + slot % kBlock;
      for (std::size_t j = 0; j < m; ++j) {
        to[layout.lines_[j] * kBlock] = layout.numbering_.number(j, codes_NM[i * m + j]);
      }
    }
  });
  placed_ += n;
  return true;
}

bool LayoutImage::valid(std::size_t threads) const {
  return valid_blocks(threads) && (!layout_->bucketed() || valid_buckets(threads));
}

bool LayoutImage::valid_blocks(std::size_t threads) const {
  const Layout& layout = *layout_;
  const std::span<const std::uint8_t> bytes = layout.blocks();
  std::atomic<bool> valid = true;
  if (layout.k_ < kExact) {  // else every number stands for a codeword
    for_each_task(layout.n_blocks() * layout.m_, threads, [&](std::size_t task, std::size_t) {
      const std::size_t b = task / layout.m_;
      const std::size_t j = task % layout.m_;
      const Numbering& numbering = layout.numbering_;
      const std::size_t lanes = std::min(kBlock, layout.n_ - b * kBlock);
      const std::size_t line = b * layout.m_ + layout.lines_[j];
      for (const std::uint8_t number : bytes.subspan(line * kBlock, lanes)) {
        if (numbering.number(j, numbering.codeword(j, number)) != number) valid = false;
      }
    });
  }
  for (std::size_t lane = layout.n_; lane < layout.n_blocks() * kBlock; ++lane) {
    const std::uint8_t* code = layout.block(lane / kBlock) + lane % kBlock;
    for (std::size_t j = 0; j < layout.m_; ++j) valid = valid && code[j * kBlock] == 0;
  }
  return valid;
}

bool LayoutImage::valid_buckets(std::size_t threads) const {
  const Layout& layout = *layout_;
  const std::vector<std::uint32_t>& starts = layout.starts_;
  if (starts.front() != 0 || starts.back() != layout.n_ ||
      !std::is_sorted(starts.begin(), starts.end())) {
    return false;
  }
  // A position that stands twice leaves another out.
  std::vector<std::atomic<std::uint64_t>> seen(layout.n_blocks());
  std::atomic<bool> valid = true;
  const BucketBooks books = layout.books_;
  const std::size_t first_book = layout.lines_[books.first] * kBlock;
  const std::size_t second_book = layout.lines_[books.second] * kBlock;
  for_each_task(starts.size() - 1, threads, [&](std::size_t bucket, std::size_t) {
    const std::size_t a = bucket / layout.row_;
    const std::size_t b = layout.row_ == 1 ? 0 : bucket % layout.row_;
    const std::uint8_t first = layout.numbering_.number(books.first, a);
    const std::uint8_t second =
        books.first == books.second ? first : layout.numbering_.number(books.second, b);
    bool fits = true;
    for (std::size_t slot = starts[bucket]; slot < starts[bucket + 1]; ++slot) {
      const std::uint8_t* code = layout.block(slot / kBlock) + slot % kBlock;
      const std::uint32_t p = layout.order_[slot];
      fits = fits && p < layout.n_ && (slot == starts[bucket] || layout.order_[slot - 1] < p) &&
             code[first_book] == first && code[second_book] == second;
      if (!fits) break;
      const std::uint64_t bit = std::uint64_t{1} << p % 64;
      fits = (seen[p / 64].fetch_or(bit, std::memory_order_relaxed) & bit) == 0;
    }
    if (!fits) valid = false;
  });
  return valid;
}

}  // namespace spherequant

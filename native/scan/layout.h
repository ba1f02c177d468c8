// Codes arranged for scanning.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "scan/byte_scan.h"
#include "scan/numbering.h"

namespace spherequant {

// Memory that starts on a cache line, in large pages where the system has them.
class AlignedBytes {
 public:
  explicit AlignedBytes(std::size_t size);
  std::uint8_t* data() const { return bytes_.get(); }
  std::size_t size() const { return size_; }

 private:
  struct Free {
    void operator()(std::uint8_t* bytes) const;
  };
  std::size_t size_;
  std::unique_ptr<std::uint8_t, Free> bytes_;
};

// The two codebooks by whose codewords items are put into buckets.
struct BucketBooks {
  std::size_t first;
  std::size_t second;  // the same as `first` where there is one codebook only
};

// N codes of M bytes in transposed blocks of 64 (byte_scan.h), each byte the number that stands for
// a codeword. Immutable once built.
//
// An item has a position, by which results are told, and a slot, where it lies. Flat: slot and
// position are one. Bucketed: items that share the codewords of two codebooks lie together, in
// order of position, and `order` gives the position of each slot. The lines of a block are in
// the order of the codebooks; where bucketed, those of the buckets' codebooks come last.
class Layout {
 public:
  // Positions are held in 32 bits.
  static constexpr std::size_t kMaxItems = 0xFFFFFFFFU;

  std::size_t size() const { return n_; }
  std::size_t n_codebooks() const { return m_; }
  std::size_t n_codewords() const { return k_; }
  std::size_t n_blocks() const { return (n_ + kBlock - 1) / kBlock; }
  std::size_t memory_bytes() const;

  const Numbering& numbering() const { return numbering_; }
  const std::uint8_t* block(std::size_t b) const { return codes_.data() + b * m_ * kBlock; }
  // lines[M]: the line of each codebook in a block.
  const std::uint8_t* lines() const { return lines_.data(); }
  // Lines in which the items of a bucket may differ, the first of each block.
  std::size_t own_lines() const { return own_lines_; }
  std::uint64_t position(std::size_t slot) const { return order_.empty() ? slot : order_[slot]; }

  // Positions are below this: N, but for a subset, whose positions are those of the whole.
  std::size_t positions() const { return positions_; }
  bool whole() const { return positions_ == n_; }
  bool bucketed() const { return !starts_.empty(); }
  // Whether all items of a bucket have the same code.
  bool lists() const { return bucketed() && m_ <= 2; }
  BucketBooks books() const { return books_; }
  // The slots of the bucket of codewords (a, b) are start(a, b) .. end(a, b) - 1.
  std::size_t start(std::size_t a, std::size_t b) const { return starts_[a * row_ + b]; }
  std::size_t end(std::size_t a, std::size_t b) const { return starts_[a * row_ + b + 1]; }
  // Buckets of a row: K, or 1 where there is one codebook.
  std::size_t row() const { return row_; }

  // The arrays as they lie in memory: n_blocks() blocks; where bucketed, the position of each slot
  // and the first slot of each bucket, with N behind the last.
  std::span<const std::uint8_t> blocks() const { return {codes_.data(), codes_.size()}; }
  std::span<const std::uint32_t> order() const { return order_; }
  std::span<const std::uint32_t> starts() const { return starts_; }

  // The codes of all items by position: codes[N, M]. Not for a subset.
  void read(std::uint8_t* codes_NM) const;

  // One bit a slot from one bit a position, n_blocks() words each.
  void to_slots(const std::uint64_t* by_position, std::uint64_t* by_slot) const;

  // A flat layout of the slots whose bits are set; their positions stay what they were.
  std::unique_ptr<Layout> subset(const std::uint64_t* by_slot) const;

 private:
  friend class LayoutBuilder;
  friend class LayoutImage;
  // Flat where `books` is null; else with room for the order, and buckets that are empty.
  Layout(std::size_t n, std::size_t m, std::size_t k, const Numbering& numbering,
         const BucketBooks* books = nullptr);
  void arrange_lines();

  std::size_t n_, m_, k_;
  std::size_t positions_;
  Numbering numbering_;
  AlignedBytes codes_;
  std::array<std::uint8_t, kMaxCodebooks> lines_{};
  std::size_t own_lines_ = 0;
  std::vector<std::uint32_t> order_;
  BucketBooks books_{};
  std::size_t row_ = 0;
  std::vector<std::uint32_t> starts_;
};

// Builds a layout from codes that come in batches, in order of position, without holding them.
// For a bucketed layout the codes come twice: first to be counted, then to be placed. All codes
// must be below K, and no more than n may come.
class LayoutBuilder {
 public:
  // Flat where `books` is null.
  LayoutBuilder(std::size_t n, std::size_t m, std::size_t k, const Numbering& numbering,
                const BucketBooks* books);

  std::size_t size() const { return layout_->size(); }
  std::size_t n_codebooks() const { return layout_->n_codebooks(); }
  std::size_t n_codewords() const { return layout_->n_codewords(); }

  // Whether codes are still to be counted.
  bool counting() const { return counting_; }
  std::size_t counted() const { return counted_; }
  void count(const std::uint8_t* codes_NM, std::size_t n);

  std::size_t placed() const { return placed_; }
  // False, and nothing placed, if these codes were not counted.
  bool place(const std::uint8_t* codes_NM, std::size_t n, std::size_t threads);

  // Whether the layout was taken: nothing else may be asked then.
  bool finished() const { return layout_ == nullptr; }
  // The layout, once; requires that all n codes were placed.
  std::unique_ptr<Layout> finish() { return std::move(layout_); }

 private:
  std::size_t bucket(const std::uint8_t* code) const;
  void start_placing();

  std::unique_ptr<Layout> layout_;
  bool counting_ = false;
  std::size_t counted_ = 0;
  std::size_t placed_ = 0;
  std::vector<std::uint32_t> next_;  // of each bucket, the slot of its next item
};

// The arrays of a layout, to be filled from where a layout was kept, and believed in nothing: it is
// one only when valid() says so.
class LayoutImage {
 public:
  LayoutImage(std::size_t n, std::size_t m, std::size_t k, const Numbering& numbering,
              const BucketBooks* books)
      : layout_(new Layout(n, m, k, numbering, books)) {}

  std::span<std::uint8_t> blocks() { return {layout_->codes_.data(), layout_->codes_.size()}; }
  std::span<std::uint32_t> order() { return layout_->order_; }
  std::span<std::uint32_t> starts() { return layout_->starts_; }

  // Whether LayoutBuilder makes these arrays of some codes, all below K.
  bool valid(std::size_t threads) const;

  // The layout, which lies in these arrays: they must be valid, and stay as they are from then on.
  std::shared_ptr<Layout> layout() const { return layout_; }

 private:
  bool valid_blocks(std::size_t threads) const;
  bool valid_buckets(std::size_t threads) const;

  std::shared_ptr<Layout> layout_;
};

}  // namespace spherequant

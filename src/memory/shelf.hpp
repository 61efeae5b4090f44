// The caching allocator's block, and the ordered sets of them that it searches. Part of allocator.cpp.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <iterator>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "memory/allocator.hpp"

namespace dryfit {

struct Block {
  std::int64_t address = 0, size = 0, requested = 0, stream = 0, born = 0;  // born: finds on its pool when it was set free
  bool small = false, allocated = false, mapped = true, expandable = false, pending = false;
  bool used_elsewhere = false;       // by another stream: its free must wait
  std::int64_t segment = 0;          // start of the reservation, for expandable page arithmetic
  Block* prev = nullptr;
  Block* next = nullptr;
  BlockId id = 0;
  bool split() const { return prev != nullptr || next != nullptr; }
};

// Entries sorted by size, then address. Sizes near each other share a bin, found from the size alone. A bin lies in pages of at most kMost, the smallest
// entry last: the lowest of equal blocks is taken first, so what comes and goes is near the end, and long bins (mixtures with many experts) cost no
// more to change. Changes make iterators invalid.
class ShelfRow {
 public:
  struct Entry {
    std::int64_t size, address;
    Block* block;
    friend bool operator<(const Entry& a, const Entry& b) { return a.size != b.size ? a.size < b.size : a.address < b.address; }
  };

  class iterator {
   public:
    using difference_type = std::ptrdiff_t;
    using value_type = Entry;
    iterator() = default;
    const Entry& operator*() const { return row_->bins_[bin_][page_][at_]; }
    const Entry* operator->() const { return &**this; }
    iterator& operator++() {
      if (at_ > 0) --at_;
      else if (page_ > 0) at_ = row_->bins_[bin_][--page_].size() - 1;
      else *this = row_->first_from(bin_ + 1);
      return *this;
    }
    iterator& operator--() {
      if (bin_ < kBins && ++at_ < row_->bins_[bin_][page_].size()) return *this;
      at_ = 0;
      if (bin_ < kBins && ++page_ < row_->bins_[bin_].size()) return *this;
      page_ = 0, bin_ = row_->last_before(bin_);
      return *this;
    }
    iterator operator++(int) { return std::exchange(*this, std::next(*this)); }
    iterator operator--(int) { return std::exchange(*this, std::prev(*this)); }
    friend bool operator==(const iterator& a, const iterator& b) { return a.bin_ == b.bin_ && a.page_ == b.page_ && a.at_ == b.at_; }

   private:
    friend class ShelfRow;
    iterator(const ShelfRow* row, std::size_t bin, std::size_t page, std::size_t at) : row_(row), bin_(bin), page_(page), at_(at) {}
    const ShelfRow* row_ = nullptr;
    std::size_t bin_ = 0, page_ = 0, at_ = 0;
  };

  iterator begin() const { return first_from(0); }
  iterator end() const { return {this, kBins, 0, 0}; }

  // The first that is not smaller.
  iterator at_least(std::int64_t size) const {
    const Place p = place_of({size, std::numeric_limits<std::int64_t>::min(), nullptr});
    return p.before > 0 ? iterator{this, p.bin, p.page, p.before - 1} : first_from(p.bin + 1);
  }
  void insert(const Entry& e) {
    const Place p = place_of(e);
    Bin& bin = bins_[p.bin];
    if (bin.empty()) bin.emplace_back();
    Page& into = bin[p.page];
    if (p.before == into.size()) into.push_back(e);
    else into.insert(into.begin() + static_cast<std::ptrdiff_t>(p.before), e);
    used_[p.bin / 64] |= std::uint64_t{1} << p.bin % 64;
    if (into.size() <= kMost) return;
    const auto half = into.begin() + static_cast<std::ptrdiff_t>(kMost / 2);
    Page rest(half, into.end());
    into.erase(half, into.end());
    bin.insert(bin.begin() + static_cast<std::ptrdiff_t>(p.page) + 1, std::move(rest));
  }
  void erase(iterator it) {
    Bin& bin = bins_[it.bin_];
    Page& from = bin[it.page_];
    if (it.at_ + 1 == from.size()) from.pop_back();
    else from.erase(from.begin() + static_cast<std::ptrdiff_t>(it.at_));
    if (!from.empty()) return;
    if (bin.size() > 1) bin.erase(bin.begin() + static_cast<std::ptrdiff_t>(it.page_));
    else used_[it.bin_ / 64] &= ~(std::uint64_t{1} << it.bin_ % 64);
  }
  void erase(const Entry& e) {  // where it is
    const Place p = place_of(e);
    if (p.before > 0 && bins_[p.bin][p.page][p.before - 1].block == e.block) erase(iterator{this, p.bin, p.page, p.before - 1});
  }

 private:
  using Page = std::vector<Entry>;
  using Bin = std::vector<Page>;                    // none of its pages is empty, but for one that is alone
  struct Place { std::size_t bin, page, before; };  // before: entries of the page that are not smaller
  static constexpr std::size_t kMost = 256, kBins = 832;

  // Sixteen of each power of two; blocks have whole 512 bytes.
  static std::size_t bin_of(std::int64_t size) {
    const std::uint64_t n = size <= 0 ? 0 : static_cast<std::uint64_t>(size) / 512;
    if (n < 16) return n;
    const auto width = static_cast<std::size_t>(std::bit_width(n));
    return (width - 4) * 16 + (n >> (width - 5)) % 16;
  }
  Place place_of(const Entry& e) const {
    const std::size_t number = bin_of(e.size);
    const Bin& bin = bins_[number];
    if (bin.empty()) return {number, 0, 0};
    const std::size_t page = bin.size() - 1;
    if (page == 0 && (bin[0].empty() || !(bin[0].back() < e))) return {number, 0, bin[0].size()};  // of most
    return place_in(number, page, e);
  }
  Place place_in(std::size_t number, std::size_t page, const Entry& e) const {
    const Bin& bin = bins_[number];
    while (page > 0 && bin[page].front() < e) --page;
    const Page& in = bin[page];
    std::size_t before = in.size();
    for (int near = 0; near < 8; ++near, --before) {
      if (before == 0 || !(in[before - 1] < e)) return {number, page, before};
    }
    return {number, page, static_cast<std::size_t>(std::partition_point(in.begin(), in.begin() + static_cast<std::ptrdiff_t>(before), [&](const Entry& x) { return !(x < e); }) - in.begin())};
  }
  iterator first_from(std::size_t bin) const {
    for (std::size_t word = bin / 64; word < used_.size(); ++word) {
      const std::uint64_t left = word == bin / 64 ? used_[word] >> bin % 64 << bin % 64 : used_[word];
      if (left == 0) continue;
      const std::size_t first = word * 64 + static_cast<std::size_t>(std::countr_zero(left));
      return {this, first, bins_[first].size() - 1, bins_[first].back().size() - 1};
    }
    return end();
  }
  std::size_t last_before(std::size_t bin) const {  // there is one
    do --bin;
    while ((used_[bin / 64] >> bin % 64 & 1) == 0);
    return bin;
  }

  std::array<Bin, kBins> bins_;
  std::array<std::uint64_t, kBins / 64> used_{};    // bins that have an entry
};

// Blocks in the order PyTorch's sets have: for each stream by size (free ones) or nothing (unmapped ones), then address.
class Shelf {
 public:
  explicit Shelf(bool by_size) : by_size_(by_size) {}
  using Row = ShelfRow;
  using Entry = ShelfRow::Entry;

  Row& of(std::int64_t stream) {
    for (auto& [owner, row] : rows_) {
      if (owner == stream) return *row;
    }
    return add(stream);
  }
  void insert(Block* b) { of(b->stream).insert(entry(b)); }
  void erase(Block* b) { of(b->stream).erase(entry(b)); }
  // b in place of the entry at `it` of its row.
  void replace(Row& row, Row::iterator it, Block* b) {
    row.erase(it);
    row.insert(entry(b));
  }
  std::vector<Block*> blocks() const {
    std::vector<Block*> out;
    for (const auto& [stream, row] : rows_) {
      for (const Entry& e : *row) out.push_back(e.block);
    }
    return out;
  }

 private:
  Row& add(std::int64_t stream) {
    const auto at = std::ranges::lower_bound(rows_, stream, {}, &StreamRow::first);
    return *rows_.insert(at, {stream, std::make_unique<Row>()})->second;
  }
  using StreamRow = std::pair<std::int64_t, std::unique_ptr<Row>>;
  Entry entry(Block* b) const { return {by_size_ ? b->size : 0, b->address, b}; }
  std::vector<StreamRow> rows_;  // by stream
  bool by_size_;
};

}  // namespace dryfit

// The caching allocator's block, and the ordered sets of them that it searches. Part of allocator.cpp.
#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
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

// Entries sorted by size, then address, in pages of at most kMost: most rows have one, and long ones (mixtures with many experts) cost no more
// to change. Changes make iterators invalid.
class ShelfRow {
 public:
  struct Entry {
    std::int64_t size;
    Block* block;
    friend bool operator<(const Entry& a, const Entry& b) { return a.size != b.size ? a.size < b.size : a.block->address < b.block->address; }
  };

  class iterator {
   public:
    using difference_type = std::ptrdiff_t;
    using value_type = Entry;
    iterator() = default;
    const Entry& operator*() const { return row_->pages_[page_][at_]; }
    const Entry* operator->() const { return &**this; }
    iterator& operator++() {
      if (++at_ == row_->pages_[page_].size()) ++page_, at_ = 0;
      return *this;
    }
    iterator& operator--() {
      if (at_ == 0) at_ = row_->pages_[--page_].size();
      --at_;
      return *this;
    }
    iterator operator++(int) { return std::exchange(*this, std::next(*this)); }
    iterator operator--(int) { return std::exchange(*this, std::prev(*this)); }
    friend bool operator==(const iterator& a, const iterator& b) { return a.page_ == b.page_ && a.at_ == b.at_; }

   private:
    friend class ShelfRow;
    iterator(const ShelfRow* row, std::size_t page, std::size_t at) : row_(row), page_(page), at_(at) {}
    const ShelfRow* row_ = nullptr;
    std::size_t page_ = 0, at_ = 0;
  };

  iterator begin() const { return {this, 0, 0}; }
  iterator end() const { return {this, pages_.size(), 0}; }

  // The first for which before() is false; it is false for all that follow.
  template <typename Before>
  iterator first_not(Before before) const {
    const auto page = std::ranges::partition_point(pages_, [&](const Page& p) { return before(p.back()); });
    if (page == pages_.end()) return end();
    return {this, static_cast<std::size_t>(page - pages_.begin()), static_cast<std::size_t>(std::ranges::partition_point(*page, before) - page->begin())};
  }
  iterator find(const Entry& e) const {
    const iterator it = first_not([&](const Entry& x) { return x < e; });
    return it != end() && it->block == e.block ? it : end();
  }

  void insert(const Entry& e) {
    if (pages_.empty()) return pages_.push_back({e});
    const iterator it = first_not([&](const Entry& x) { return x < e; });
    const std::size_t page = std::min(it.page_, pages_.size() - 1);  // behind all: in the last page
    Page& into = pages_[page];
    into.insert(it.page_ == page ? into.begin() + static_cast<std::ptrdiff_t>(it.at_) : into.end(), e);
    if (into.size() <= kMost) return;
    const auto half = into.begin() + static_cast<std::ptrdiff_t>(kMost / 2);
    Page rest(half, into.end());
    into.erase(half, into.end());
    pages_.insert(pages_.begin() + static_cast<std::ptrdiff_t>(page) + 1, std::move(rest));
  }
  void erase(iterator it) {
    Page& from = pages_[it.page_];
    from.erase(from.begin() + static_cast<std::ptrdiff_t>(it.at_));
    if (from.empty()) pages_.erase(pages_.begin() + static_cast<std::ptrdiff_t>(it.page_));
  }
  // e in place of the entry at `it`: only what lies between moves, where both are of one page.
  void replace(iterator it, const Entry& e) {
    const iterator to = first_not([&](const Entry& x) { return x < e; });
    if (to.page_ != it.page_) {
      erase(it);
      return insert(e);
    }
    Page& page = pages_[it.page_];
    const auto old = page.begin() + static_cast<std::ptrdiff_t>(it.at_);
    auto fresh = page.begin() + static_cast<std::ptrdiff_t>(to.at_);
    if (fresh > old) std::move(old + 1, fresh, old), --fresh;
    else std::move_backward(fresh, old, old + 1);
    *fresh = e;
  }

 private:
  using Page = std::vector<Entry>;
  static constexpr std::size_t kMost = 256;
  std::vector<Page> pages_;                         // none is empty
};

// Blocks in the order PyTorch's sets have: for each stream by size (free ones) or nothing (unmapped ones), then address.
class Shelf {
 public:
  explicit Shelf(bool by_size) : by_size_(by_size) {}
  using Row = ShelfRow;
  using Entry = ShelfRow::Entry;

  Row& of(std::int64_t stream) {
    for (auto& [owner, row] : rows_) {
      if (owner == stream) return row;
    }
    const auto at = std::ranges::lower_bound(rows_, stream, {}, &std::pair<std::int64_t, Row>::first);
    return rows_.insert(at, {stream, {}})->second;
  }
  void insert(Block* b) { of(b->stream).insert(entry(b)); }
  void erase(Block* b) {
    Row& row = of(b->stream);
    const auto it = row.find(entry(b));
    if (it != row.end()) row.erase(it);
  }
  // The entry at `it` now stands for b, which may belong elsewhere in the same row.
  void replace(Row& row, Row::iterator it, Block* b) { row.replace(it, entry(b)); }
  static Row::iterator at_least(const Row& row, std::int64_t size) {
    return row.first_not([size](const Entry& e) { return e.size < size; });
  }
  std::vector<Block*> blocks() const {
    std::vector<Block*> out;
    for (const auto& [stream, row] : rows_) {
      for (const Entry& e : row) out.push_back(e.block);
    }
    return out;
  }

 private:
  Entry entry(Block* b) const { return {by_size_ ? b->size : 0, b}; }
  std::vector<std::pair<std::int64_t, Row>> rows_;  // by stream
  bool by_size_;
};

}  // namespace dryfit

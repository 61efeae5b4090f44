// The caching allocator's block, and the ordered sets of them that it searches. Part of allocator.cpp.
#pragma once

#include <algorithm>
#include <cstdint>
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

// Blocks in the order PyTorch's sets have: for each stream by size (free ones) or nothing (unmapped ones), then address. Sorted
// arrays: they are short, and what is searched for lies in the array itself.
class Shelf {
 public:
  explicit Shelf(bool by_size) : by_size_(by_size) {}
  struct Entry { std::int64_t size; Block* block; };
  using Row = std::vector<Entry>;

  Row& of(std::int64_t stream) {
    for (auto& [owner, row] : rows_) {
      if (owner == stream) return row;
    }
    const auto at = std::ranges::lower_bound(rows_, stream, {}, &std::pair<std::int64_t, Row>::first);
    return rows_.insert(at, {stream, {}})->second;
  }
  void insert(Block* b) {
    Row& row = of(b->stream);
    row.insert(place(row, b), {size_of(b), b});
  }
  void erase(const Block* b) {
    Row& row = of(b->stream);
    const auto it = place(row, b);
    if (it != row.end() && it->block == b) row.erase(it);
  }
  // The entry at `it` now stands for b, which may belong elsewhere in the same row: only what lies between moves.
  void replace(Row& row, Row::iterator it, Block* b) {
    const Entry fresh{size_of(b), b};
    auto to = place(row, b);
    if (to > it) std::move(it + 1, to, it), --to;
    else std::move_backward(to, it, it + 1);
    *to = fresh;
  }
  static Row::iterator at_least(Row& row, std::int64_t size) { return std::ranges::lower_bound(row, size, {}, &Entry::size); }
  std::vector<Block*> blocks() const {
    std::vector<Block*> out;
    for (const auto& [stream, row] : rows_) {
      for (const Entry& e : row) out.push_back(e.block);
    }
    return out;
  }

 private:
  std::int64_t size_of(const Block* b) const { return by_size_ ? b->size : 0; }
  Row::iterator place(Row& row, const Block* b) const {
    const std::int64_t size = size_of(b), address = b->address;
    return std::lower_bound(row.begin(), row.end(), b, [&](const Entry& e, const Block*) { return e.size != size ? e.size < size : e.block->address < address; });
  }
  std::vector<std::pair<std::int64_t, Row>> rows_;  // by stream
  bool by_size_;
};

}  // namespace dryfit

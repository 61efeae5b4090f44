// Sequences kept once each: the same sequence gives the same number again. For texts, stack traces and the like, which repeat enormously.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <deque>
#include <memory>
#include <span>
#include <utility>
#include <vector>

namespace dryfit {

// T: trivially copyable, without padding. Sequence 0 is the empty one. What was handed out stays valid until the pool goes.
template <class T>
class SpanPool {
 public:
  SpanPool() { intern({}); }
  std::uint32_t intern(std::span<const T> items) {
    if (sequences_.size() * 4 >= table_.size() * 3) grow();
    const std::uint64_t hash = hash_of(items);
    const std::size_t mask = table_.size() - 1;
    for (std::size_t i = hash & mask;; i = (i + 1) & mask) {
      Slot& slot = table_[i];
      if (slot.number == 0) {
        sequences_.push_back(keep(items));
        slot = {static_cast<std::uint32_t>(hash >> 32), static_cast<std::uint32_t>(sequences_.size())};
        return slot.number - 1;
      }
      if (slot.check == static_cast<std::uint32_t>(hash >> 32) && same((*this)[slot.number - 1], items)) return slot.number - 1;
    }
  }
  std::span<const T> operator[](std::uint32_t number) const { return sequences_[number]; }
  std::uint32_t size() const { return static_cast<std::uint32_t>(sequences_.size()); }
  std::size_t memory() const { return kept_ * sizeof(T) + sequences_.size() * sizeof(std::span<const T>) + table_.capacity() * sizeof(Slot); }

 private:
  struct Slot { std::uint32_t check = 0, number = 0; };  // number: of the sequence, + 1; 0: free

  static constexpr std::size_t kChunk = (1 << 16) / sizeof(T);
  std::span<const T> keep(std::span<const T> items) {
    if (items.empty()) return {};
    if (items.size() > room_) {
      room_ = std::max(kChunk, items.size());
      chunks_.push_back(std::make_unique_for_overwrite<T[]>(room_));
      next_ = chunks_.back().get();
      kept_ += room_;
    }
    T* at = next_;
    std::memcpy(at, items.data(), items.size_bytes());
    next_ += items.size();
    room_ -= items.size();
    return {at, items.size()};
  }
  static bool same(std::span<const T> a, std::span<const T> b) { return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size_bytes()) == 0); }
  static std::uint64_t hash_of(std::span<const T> items) {
    const char* at = reinterpret_cast<const char*>(items.data());
    std::size_t left = items.size_bytes();
    std::uint64_t h = 0x9E3779B97F4A7C15ULL ^ left;
    const auto mix = [&](std::uint64_t word) {
      h = (h ^ word) * 0xFF51AFD7ED558CCDULL;
      h ^= h >> 32;
    };
    for (; left >= 8; at += 8, left -= 8) {
      std::uint64_t word = 0;
      std::memcpy(&word, at, 8);
      mix(word);
    }
    if (left > 0) {
      std::uint64_t word = 0;
      std::memcpy(&word, at, left);
      mix(word);
    }
    h *= 0xC4CEB9FE1A85EC53ULL;
    return h ^ (h >> 29);
  }
  void grow() {
    std::vector<Slot> old = std::exchange(table_, std::vector<Slot>(table_.empty() ? 64 : table_.size() * 2));
    const std::size_t mask = table_.size() - 1;
    for (const Slot& slot : old) {
      if (slot.number == 0) continue;
      std::size_t i = hash_of((*this)[slot.number - 1]) & mask;
      while (table_[i].number != 0) i = (i + 1) & mask;
      table_[i] = slot;
    }
  }

  std::vector<std::unique_ptr<T[]>> chunks_;
  T* next_ = nullptr;
  std::size_t room_ = 0, kept_ = 0;
  std::deque<std::span<const T>> sequences_;
  std::vector<Slot> table_;
};

}  // namespace dryfit

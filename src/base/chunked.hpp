// A growing array in pieces of a megabyte: nothing is copied as it grows, so memory never doubles, and it goes back in pieces too.
#pragma once

#include <cstddef>
#include <memory>
#include <type_traits>
#include <vector>

namespace dryfit {

template <class T>
class Chunked {
  static_assert(std::is_trivially_copyable_v<T> && (sizeof(T) & (sizeof(T) - 1)) == 0);

 public:
  std::size_t size() const { return size_; }
  T& operator[](std::size_t i) { return chunks_[i / kEach][i % kEach]; }
  const T& operator[](std::size_t i) const { return chunks_[i / kEach][i % kEach]; }
  void push_back(const T& value) {
    if (size_ == chunks_.size() * kEach) chunks_.push_back(std::make_unique_for_overwrite<T[]>(kEach));
    (*this)[size_++] = value;
  }
  // Grown by values of T().
  void resize(std::size_t size) {
    while (size_ < size) push_back(T());
    size_ = size;
  }
  std::size_t memory() const { return chunks_.size() * kEach * sizeof(T); }

 private:
  static constexpr std::size_t kEach = (std::size_t{1} << 20) / sizeof(T);
  std::vector<std::unique_ptr<T[]>> chunks_;
  std::size_t size_ = 0;
};

}  // namespace dryfit

// Which of a fixed set of words occur in a line, in one pass over its bytes (Aho-Corasick, ASCII case ignored): the sieve that lets
// a reader skip nearly all of a large log. Says which, not where.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace dryfit {

class WordFilter {
 public:
  struct Word { std::string_view text; std::uint32_t bits; };
  explicit WordFilter(std::span<const Word> words);
  std::uint32_t match(std::string_view text) const;  // the bits of all words in it

 private:
  std::vector<std::uint32_t> next_;   // [state + byte] -> state; states count in steps of 256
  std::vector<std::uint32_t> bits_;   // of states from accepting_ on
  std::uint32_t accepting_ = 0;
  std::size_t longest_ = 0;
};

}  // namespace dryfit

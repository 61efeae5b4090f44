// See word_filter.hpp.
#include "doctor/word_filter.hpp"

#include <algorithm>
#include <array>
#include <deque>

namespace dryfit {

namespace {

struct TrieNode {
  std::array<std::int32_t, 256> next;
  std::int32_t fail = 0;
  std::uint32_t bits = 0;
  TrieNode() { next.fill(-1); }
};

unsigned char lower(unsigned char c) { return c >= 'A' && c <= 'Z' ? static_cast<unsigned char>(c + 32) : c; }

}  // namespace

WordFilter::WordFilter(std::span<const Word> words) {
  std::vector<TrieNode> nodes(1);
  for (const Word& word : words) {
    longest_ = std::max(longest_, word.text.size());
    std::size_t at = 0;
    for (char c : word.text) {
      const unsigned char u = lower(static_cast<unsigned char>(c));
      if (nodes[at].next[u] < 0) {
        nodes[at].next[u] = static_cast<std::int32_t>(nodes.size());
        nodes.emplace_back();
      }
      at = static_cast<std::size_t>(nodes[at].next[u]);
    }
    nodes[at].bits |= word.bits;
  }
  std::deque<std::size_t> queue;  // by depth, so that a shorter suffix is finished before a longer word
  for (auto& n : nodes[0].next) {
    if (n < 0) n = 0;
    else queue.push_back(static_cast<std::size_t>(n));
  }
  while (!queue.empty()) {
    TrieNode& node = nodes[queue.front()];
    queue.pop_front();
    const TrieNode& suffix = nodes[static_cast<std::size_t>(node.fail)];
    node.bits |= suffix.bits;
    for (std::size_t c = 0; c < 256; ++c) {
      if (node.next[c] < 0) {
        node.next[c] = suffix.next[c];
      } else {
        nodes[static_cast<std::size_t>(node.next[c])].fail = suffix.next[c];
        queue.push_back(static_cast<std::size_t>(node.next[c]));
      }
    }
  }
  std::vector<std::uint32_t> order(nodes.size()), place(nodes.size());  // accepting states last: one comparison finds them
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<std::uint32_t>(i);
  std::ranges::stable_partition(order, [&](std::uint32_t i) { return nodes[i].bits == 0; });
  for (std::size_t i = 0; i < order.size(); ++i) place[order[i]] = static_cast<std::uint32_t>(i) * 256;
  next_.resize(nodes.size() * 256);
  accepting_ = static_cast<std::uint32_t>(next_.size());
  for (std::size_t i = 0; i < order.size(); ++i) {
    const TrieNode& node = nodes[order[i]];
    if (node.bits != 0) {
      accepting_ = std::min(accepting_, static_cast<std::uint32_t>(i * 256));
      bits_.push_back(node.bits);
    }
    for (std::size_t c = 0; c < 256; ++c) next_[i * 256 + c] = place[static_cast<std::size_t>(node.next[lower(static_cast<unsigned char>(c))])];
  }
}

// Each step waits for the one before, so a long line is read from its start and from its middle at once.
std::uint32_t WordFilter::match(std::string_view text) const {
  const std::uint32_t* const next = next_.data();
  std::uint32_t bits = 0;
  const auto step = [&](std::uint32_t& state, char c) {
    state = next[state + static_cast<unsigned char>(c)];
    if (state >= accepting_) bits |= bits_[(state - accepting_) / 256];
  };
  std::uint32_t first = 0, second = 0;
  std::size_t i = 0;
  if (text.size() >= 3 * longest_) {
    const std::string_view half = text.substr(text.size() / 2);
    for (; i < half.size(); ++i) {
      step(first, text[i]);
      step(second, half[i]);
    }
    text = text.substr(0, std::min(text.size(), text.size() - half.size() + longest_));  // words across the middle belong to the first
  }
  for (; i < text.size(); ++i) step(first, text[i]);
  return bits;
}

}  // namespace dryfit

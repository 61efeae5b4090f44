// What Inductor calls the buffers of a graph, as far as their order by name goes: what a kernel waits for and what it frees are sorted so.
// Source: torch/_inductor/{graph,scheduler}.py (2.9.1).
#pragma once

#include <cstdint>
#include <vector>

#include "passes/realize.hpp"

namespace dryfit {

class BufferNames : protected Realization {
 protected:
  BufferNames(const FuseInput& input, bool eager);

  // Names what is stored, in the order in which it is written down, and what forward's attention hands over.
  void give_names(const std::vector<NodeId>& stored);
  // Where a value's kind of name stands among others: "buf7" of this graph among the names that values of the other graph have there.
  int name_rank(NodeId v) const;

  // By value, of one kind of name: a key in the order of text. written: as those know it who read what a kernel wrote into it.
  std::vector<std::int64_t> name_, written_name_;

 private:
  std::int32_t buffers_of(NodeId kernel) const;
  void name_given_results();

  std::vector<bool> read_by_attention_;
  NodeId attention_ = kNone;  // some attention's backward kernel
};

}  // namespace dryfit

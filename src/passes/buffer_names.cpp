// See buffer_names.hpp.
#include "passes/buffer_names.hpp"

#include "workload/workload.hpp"

namespace dryfit {

namespace {

constexpr std::int32_t kFlashAttention3Backward = 8;  // three gradients made before, the kernel, the three as written, sums that nobody reads

// A key that sorts numbers as their digits do: 1018 before 26.
std::int64_t as_text(std::int32_t number) {
  constexpr int kDigits = 8;
  std::int64_t unit = 1, key = 0;
  while (number / unit >= 10) unit *= 10;
  for (int place = 0; place < kDigits; ++place, unit /= 10) key = key * 11 + (unit > 0 ? number / unit % 10 + 1 : 0);
  return key;
}

// FlashAttention 2 and cuDNN return four things between the statistics and the seed that are none here.
bool nine_results(const Node& attention) {
  const auto kind = static_cast<Attention>(attention.variant);
  return kind == Attention::flash || kind == Attention::cudnn;
}

}  // namespace

BufferNames::BufferNames(const FuseInput& input, bool eager) : Realization(input, eager), read_by_attention_(nodes_.size(), false) {
  for (NodeId v : in_.compute) {
    if (node(v).fn != Fn::attention_backward) continue;
    for (std::uint8_t k = 0; k < node(v).inputs; ++k) read_by_attention_[at(node(v).in[k])] = true;
    attention_ = v;
  }
}

// How many buffers an attention has: itself and each tensor that it returns or writes into, nobody's among them. 0: not known.
std::int32_t BufferNames::buffers_of(NodeId kernel) const {
  const bool forward = node(kernel).fn == Fn::attention;
  if (!forward && node(kernel).fn != Fn::attention_backward) return 0;
  switch (static_cast<Attention>(node(kernel).variant)) {
    case Attention::fa3: return forward ? 5 : kFlashAttention3Backward;
    case Attention::flash: return forward ? 6 : 4;
    case Attention::efficient: case Attention::cudnn: return forward ? 5 : 4;
    default: return 0;
  }
}

// "getitem_7" in backward: that many results of kernels came before, those that are no tensors too.
void BufferNames::name_given_results() {
  std::vector<std::int32_t> before(nodes_.size(), 0);
  std::int32_t results = 0;
  for (std::size_t i = 0; i < nodes_.size(); ++i) {
    const Node& n = nodes_[i];
    if (n.fn == Fn::attention) {
      before[i] = results;
      results += nine_results(n) ? 9 : 4;
    } else if (n.fn == Fn::result && given_[i] && node(n.in[0]).fn == Fn::attention) {
      const bool apart = n.variant > 1 && nine_results(node(n.in[0]));
      name_[i] = as_text(before[at(n.in[0])] + n.variant + (apart ? 4 : 0));
    }
  }
}

void BufferNames::give_names(const std::vector<NodeId>& stored) {
  name_.assign(nodes_.size(), 0);
  written_name_.assign(nodes_.size(), 0);
  name_given_results();
  std::vector<std::int32_t> first(nodes_.size(), 0);  // of a kernel's
  std::int32_t next = 0;
  for (NodeId v : stored) {
    const Node& n = node(v);
    if (n.fn == Fn::amax_rows && n.variant == kInParts) ++next;  // a whole tensor's values where they are reduced in parts (ir.py, check_for_split_dense_dim_reindexing)
    std::int32_t mine = next, written = next;
    if (n.kind == Kind::kernel) {
      first[at(v)] = next;
      const std::int32_t all = buffers_of(v);
      if (all == kFlashAttention3Backward) mine = written = next + 3;
      next += all > 0 ? all : 1;
    } else if (n.kind == Kind::result && buffers_of(n.in[0]) > 0) {
      const std::int32_t base = first[at(n.in[0])] + n.variant;
      mine = made_before(v) ? base : base + 1;
      written = made_before(v) ? base + 4 : mine;
    } else {
      ++next;
    }
    name_[at(v)] = as_text(mine);
    written_name_[at(v)] = as_text(written);
  }
}

int BufferNames::name_rank(NodeId v) const {
  enum Name { scaled_mm, add, amax, buf, cat, constant, convert, div, embedding, getitem, gt, log, mm, mul, permute, rsqrt, sub, view };
  if (!given_[at(v)]) return buf;
  const Node& n = node(v);
  const bool attention = read_by_attention_[at(v)], fa3 = attention && static_cast<Attention>(node(attention_).variant) == Attention::fa3;
  const bool cudnn = attention && static_cast<Attention>(node(attention_).variant) == Attention::cudnn, made = n.fn == Fn::add || n.fn == Fn::convert || n.fn == Fn::expand;
  if (attention && n.kind != Kind::result && !fa3 && !(cudnn && made)) return permute;  // a view for the kernel; cuDNN's takes what was made in its order as it is
  const auto of_random = [&](NodeId x) { return node(x).fn == Fn::random || (node(x).fn == Fn::convert && node(node(x).in[0]).fn == Fn::random); };
  const bool products_alone = products_[at(v)] > 0 && users_[at(v)] == 1;
  switch (n.fn) {
    case Fn::add: return add;
    case Fn::amax_rows: return amax;
    case Fn::cat: return cat;
    case Fn::convert: return fa3 || (n.shape.batched && !products_alone && n.variant != kViewed) ? convert : n.shape.batched ? view : permute;  // named after its view, a weight after its permutation
    case Fn::embedding: return embedding;
    case Fn::shift: return n.variant == kShiftPads ? constant : view;
    case Fn::result: case Fn::mean_rows: return getitem;  // a mean is a result of var_mean
    case Fn::log: return log;
    case Fn::mul: return products_alone ? view : mul;  // a norm's output in fp32 is what its own backward reads too
    case Fn::matmul: return fa3 ? view : is_scaled(n) ? scaled_mm : mm;
    case Fn::scale: return node(n.in[0]).fn == Fn::rsqrt ? div : mul;
    case Fn::compare: return of_random(n.in[0]) ? gt : view;  // a mask of dropout
    case Fn::rsqrt: return rsqrt;
    case Fn::sub: return sub;
    default: return view;
  }
}

}  // namespace dryfit

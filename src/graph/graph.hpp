// The operator graph of one forward pass, at the grain of torch's ATen ops after decomposition: what autograd, the min-cut
// partitioner and Inductor's fusion look at. Views that only rename dimensions are not written down: a tensor and its
// reshapes are one node. No bytes of gradients, no order of kernels: passes/ derives those.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/dtype.hpp"

namespace dryfit {

enum class Attention;  // workload/workload.hpp
using NodeId = std::int32_t;
constexpr NodeId kNone = -1;

// Up to four dimensions. `batched`: the first dimension is B or B*T, so the element count is proportional to the device batch.
struct Shape {
  std::array<std::int64_t, 4> dim{};
  std::uint8_t rank = 0;
  bool batched = false;
  std::int64_t numel() const {
    std::int64_t n = 1;
    for (std::uint8_t i = 0; i < rank; ++i) n *= dim[i];
    return n;
  }
  friend bool operator==(const Shape& a, const Shape& b) { return a.rank == b.rank && a.dim == b.dim; }
};
Shape shape(std::span<const std::int64_t> dims, bool batched);
inline Shape shape(std::initializer_list<std::int64_t> dims, bool batched) { return shape(std::span(dims.begin(), dims.size()), batched); }
Shape rows_of(Shape s);  // one value for each row
// [texts, rows, width] as Inductor lays it out where it is free to: texts longer than 1024 elements begin at multiples of 128 bytes (ir.py, Layout._pad_strides).
Shape padded_texts(const Shape& s, Dtype d);
// Elements of one device batch that it leaves free between rows and texts: each that is longer than 1024 elements begins at a multiple of 128 bytes (likewise).
std::int64_t padding_of(const Shape& s, Dtype d);
// How many parts a reduction of so many elements to one value is split into, 1: none (choices.py, reduction_split_factor, of an inner reduction).
std::int64_t inner_splits(std::int64_t elements, std::int64_t multiprocessors);

// How a node is computed, as far as materialisation goes.
enum class Kind : std::uint8_t {
  input,      // parameter, buffer or data: its memory belongs to the caller
  pointwise,  // element by element; fuses with anything fusible
  reduction,  // rows to one value each; fuses
  view,       // part of its input's storage (slices); fuses, owns nothing
  cat,        // fuses with what feeds it, not with what reads it
  matmul,     // a cuBLAS call: reads and writes memory
  kernel,     // an opaque kernel (attention, scatter): its outputs are `result` nodes
  result,     // one output of a kernel
};

// What a node computes, as far as autograd must know.
enum class Fn : std::uint8_t {
  input, convert, add, sub, mul, scale, square, rsqrt, mean_rows, sum_rows, sum_all, amax_rows, exp, log, tanh, tanh_grad,
  sigmoid, sigmoid_grad, relu, relu_grad, slice, pad, cat, embedding, matmul, attention, attention_backward, result,
  nll_loss, nll_grad, softmax_grad, scatter_rows, fill, scaled_cast, amax_all, transpose,
  power,         // x^2 as pow(2) writes it
  offset,        // plus a number
  cube,          // x^3 likewise
  variance_rows, // Welford's sum of squared distances from a row's mean
  join,          // three tensors side by side in each row, which their readers may inline
  sum_batch,     // over the batch: the gradient of what all of its texts share
  cosine,        // or sine
  abs, reciprocal,
  silu, silu_grad,
  gelu, gelu_grad, // of the error function
  rotate_half,   // (-x2, x1) of a head's halves; its gradient moves elements alike
  rotate_pairs,  // neighbours of a head turned by a table's cosines and sines; its gradient is turned back
  expand,        // heads repeated
  sum_groups,    // and summed again
  sum_columns,   // over all rows: the gradient of what every row was multiplied by, or had added
  random, drop,  // dropout: uniform numbers of a seed; what a mask leaves
  turn,          // complex numbers by those of a table, an opaque kernel; its gradient is turned back
  topk,          // an opaque kernel: the largest of each row, and their places
  dequantize,    // bitsandbytes' kernels, opaque: scales of their own, or whole weights
  mask, shift, compare,  // of integers: an additive mask, those at other places, which of them count
  laid_out,      // what a product that fixes its operands' strides reads: its source where that is in memory, else a copy of its own (passes/lower.hpp)
};

struct Node {
  Fn fn = Fn::input;
  Kind kind = Kind::pointwise;
  Dtype dtype = Dtype::bf16;
  std::uint8_t inputs = 0;
  std::int8_t variant = 0;         // slice: which part; result: which output; matmul: 0 y=xW^T, 1 dx=gW, 2 dW=g^T x; scale, offset: which number, where several use one
  bool backward = false;           // made by autograd
  bool flat = false;               // computed over rows alone, of texts put together: view(-1, width)
  std::int16_t layer = -1;         // block, or -1
  std::array<NodeId, 9> in{kNone, kNone, kNone, kNone, kNone, kNone, kNone, kNone, kNone};  // attention backward has most
  Shape shape;
  const char* role = "";           // "attn.q", "mlp.c_fc": where in the model, without the layer
  std::int64_t padding = 0;        // elements that its memory has beside those of the shape
  std::int64_t bytes() const { return (shape.numel() + padding) * size_of(dtype); }
};

// A product in fp8: two operands and their scales.
inline bool is_scaled(const Node& n) { return n.kind == Kind::matmul && n.inputs == 4; }

constexpr int kInParts = 1;    // the variant of a maximum over parts of a whole tensor, not over rows (passes/lower.hpp)
constexpr int kNumberOne = 1;  // of those that several nodes use
constexpr int kViewed = 1;     // the variant of a cast whose readers all read a view of it
constexpr int kEvenRows = 1;   // the variant of a transpose that copies what lies in memory with rows unevenly spaced
constexpr int kByHeads = 2;     // of one that copies what lies in memory head by head
constexpr int kShiftPads = 1;  // the variant of a shift that is nothing but padding, which fuses with nothing to the partitioner

// What a graph input is to the outside.
struct GraphInput {
  NodeId node;
  std::int32_t parameter;          // index into Model::parameters, or -1: token ids, targets, rotary tables
  bool trains = true;              // of a parameter: wants a gradient
  bool passing = false;            // made for a call, of no batch: lives as long as backward reads it
};

// Composites that autograd differentiates as one, as torch does: their inner nodes get no gradients of their own.
struct RmsNorm { NodeId x, upcast, rstd, xhat, out, weight = kNone; };  // weight: what torch's fused norm multiplies by, its gradient within
struct LayerNorm { NodeId x, mean, rstd, xhat, out, weight, bias; };  // native_layer_norm: statistics in fp32
struct Split { NodeId whole; std::array<NodeId, 3> parts; };         // views of parts of each row, whose gradients are joined
struct CrossEntropy { NodeId logits, log_probs, targets, loss, valid = kNone, count = kNone; };  // logits: fp32, after the soft-cap; valid, count: of targets that are not ignored
// bias: additive mask, or kNone; seed, offset: dropout's random state, where the kernel hands one out; window: keys to the left that a query sees, the sequence length: all
struct AttentionCall { NodeId kernel, q, k, v, out, lse, bias, seed, offset; std::int64_t window = 0; };
struct Float8 { NodeId value, inverse; };                           // a tensor in fp8, and 1 / its scale
struct Float8Linear { NodeId x; Float8 x8; NodeId w; Float8 w8; NodeId out; };  // both fp8 tensors are used again in backward

// y = x W^T + b computed in another dtype than x or W has, or with a bias: x and W are cast once for all, and every product's gradients are cast back.
// product: x W^T; `out` itself where the bias is added within, as it is unless all who read y are pointwise (fx_passes/post_grad.py, should_prefer_unfused_addmm).
struct CastLinear { NodeId x, w, bias, out, product; };

// Softmax of logits over a row, its largest, shared out of one where sum is given. out: the shares, cast or not.
struct Routing { NodeId logits, probs, values, places, sum, shares, out; };

struct Graph {
  std::vector<CastLinear> linears;
  std::vector<Routing> routings;
  std::vector<RmsNorm> norms;
  std::vector<LayerNorm> layer_norms;
  std::vector<Split> splits;
  std::vector<AttentionCall> attentions;
  std::vector<Float8Linear> float8;
  CrossEntropy cross_entropy{kNone, kNone, kNone, kNone};
  std::vector<Node> nodes;         // topological: every input stands before its user
  std::vector<GraphInput> inputs;
  NodeId loss = kNone;             // scalar fp32
  std::vector<NodeId> outputs;     // returned beside the loss, the logits first; autograd is given zeros as their gradients
  Dtype compute = Dtype::bf16;
  bool sums_in_fp32 = false;       // autocast is on where autograd broadcasts back (aten/src/ATen/autocast_mode.h, sum)
  bool checkpoints = false;        // every block is a checkpoint: what stands in a layer is computed again, but for what the next layer is given
  std::vector<NodeId> kept;        // of a checkpoint's: what its policy saves
  bool loops_apart = false;        // Inductor leaves loops as the code has them until it has chosen kernels (passes/loops.hpp): from torch 2.10 on
  int multiprocessors = 132;       // of the GPU: how many parts a sum over rows is split into
  std::string name_of(NodeId id) const;  // "h.3.attn.q", "lm_head"
};

// What of the GPU and its torch moves a compiled model of transformers. masked: the kernel that scaled_dot_product_attention takes beside a mask.
struct CompileTarget {
  int multiprocessors = 132;
  Attention masked{};
};

// Writes nodes down; one per graph. `layer` and `role` label what comes next.
class GraphBuilder {
 public:
  explicit GraphBuilder(Graph& graph) : graph_(graph) {}
  void at(int layer) { layer_ = static_cast<std::int16_t>(layer); }
  void backward(bool on) { backward_ = on; }
  void flat(bool on) { flat_ = on; }

  NodeId input(Shape s, Dtype d, const char* role, std::int32_t parameter);
  NodeId convert(NodeId x, Dtype d, const char* role);
  NodeId binary(Fn fn, NodeId a, NodeId b, Dtype d, const char* role);     // shape of the larger operand
  NodeId unary(Fn fn, NodeId x, Dtype d, const char* role);
  // By a number that several nodes of the graph use: which of them, from 1.
  NodeId with_number(Fn fn, NodeId x, int which, Dtype d, const char* role);
  NodeId reduce(Fn fn, NodeId x, Shape s, Dtype d, const char* role, NodeId second = kNone);
  NodeId slice(NodeId x, Shape s, int part, const char* role);
  NodeId pointwise(Fn fn, std::span<const NodeId> in, Shape s, Dtype d, const char* role);
  NodeId cat(NodeId a, NodeId b, Shape s, const char* role);
  NodeId matmul(NodeId a, NodeId b, Shape s, Dtype d, int variant, const char* role);
  NodeId addmm(NodeId added, NodeId a, NodeId b, Shape s, Dtype d, int variant, const char* role);  // added: within the product
  // self * other, where backward writes self's gradient first: that of the second operand is.
  NodeId times(NodeId self, NodeId other, Dtype d, const char* role);
  // x over the root of the mean of its squares in each row, in fp32: an RMSNorm before its weight.
  NodeId over_rms(NodeId x, const char* role);
  // nn.LayerNorm, listed among the graph's.
  NodeId layer_norm(NodeId x, NodeId weight, NodeId bias, Dtype d, const char* role);
  // Another of the same tensor, whose statistics and rows it shares.
  NodeId layer_norm_again(LayerNorm first, NodeId weight, NodeId bias, Dtype d, const char* role);
  // Three equal parts of each row, listed among the graph's splits.
  std::array<NodeId, 3> split(NodeId x, Shape part, std::array<const char*, 3> roles);
  // What dropout leaves of x: uniform numbers of one of `seeds` are stored, and so is the mask where backward needs it.
  NodeId dropped(NodeId x, NodeId seeds, const char* role);
  // scaled_dot_product_attention, listed among the graph's. variant: the kernel; bias: kNone for none; stats: what it keeps of each row; seeds: numbers of dropout's
  // random state that it hands out, even when there is no dropout; 0: none.
  AttentionCall attention(int variant, NodeId q, NodeId k, NodeId v, NodeId bias, Shape out, Shape stats, std::int64_t seeds, std::int64_t window, const char* stats_role = "attn.lse");
  // A view: the same node with another shape.
  NodeId viewed(NodeId x, Shape s);
  // nanochat/fp8.py: fp32, largest magnitude, scale (in fp64, kept as fp32), product, clamp, cast; and the product of two such.
  Float8 to_float8(NodeId x, Dtype d, const char* role);
  NodeId scaled_matmul(Float8 a, Float8 b, Shape s, Dtype d, int variant, const char* role);
  // fp32 logits to log-probabilities: maximum and sum of each row.
  NodeId log_softmax(NodeId logits);
  // The k largest of each row's softmax in `d`, listed among the graph's.
  Routing route(NodeId logits, std::int64_t k, bool shared_out, Dtype d);
  // Sums and maxima over rows of fewer than eight are written out (inductor.config.unroll_reductions_threshold): no loop of their own.
  NodeId reduce_rows(Fn fn, NodeId x, Dtype d, const char* role);
  // Over all rows, to shape `s`; in two kernels where there are many (choices.py, reduction_split_factor, of an outer reduction).
  NodeId column_sums(NodeId x, Shape s, Dtype d, const char* role);
  // The copy of padded texts that a product takes, rows evenly spaced.
  NodeId even_rows(NodeId x, Shape s, const char* role);
  // The copy, row by row, of what lies in memory head by head.
  NodeId by_rows(NodeId x, const char* role);
  NodeId kernel(Fn fn, std::span<const NodeId> in, const char* role);
  NodeId result(NodeId kernel, int which, Shape s, Dtype d, const char* role);
  const Node& operator[](NodeId id) const { return graph_.nodes[static_cast<std::size_t>(id)]; }
  std::int64_t last() const { return static_cast<std::int64_t>(graph_.nodes.size()) - 1; }

 private:
  NodeId push(Node node);
  Graph& graph_;
  std::int16_t layer_ = -1;
  bool backward_ = false, flat_ = false;
};

}  // namespace dryfit

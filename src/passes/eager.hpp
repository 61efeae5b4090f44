// The eager engine: runs a model's forward code op by op, as eager PyTorch would, on tensors that have sizes and no data, and notes every
// allocation and free. Tensor handles count references as Python names do; autograd nodes keep what derivatives.yaml says they save; the
// backward pass is derived from the nodes in the engine's order (torch/csrc/autograd/engine.cpp, input_buffer.cpp, accumulate_grad.h).
// It knows ops; models (transformer.cpp), optimizers and training loops are written on top.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <queue>
#include <span>
#include <utility>
#include <vector>

#include "passes/embedding_scratch.hpp"
#include "passes/program.hpp"
#include "passes/strided.hpp"

namespace dryfit::eager {

class Tape;

// A name for a tensor, as a Python variable: copies share it, the last one that goes lets its storage go (unless something saved it).
// Must not outlive its tape.
class Tensor {
 public:
  Tensor() = default;
  Tensor(const Tensor& o);
  Tensor(Tensor&& o) noexcept : tape_(o.tape_), id_(o.id_) { o.tape_ = nullptr; }
  Tensor& operator=(Tensor o) noexcept {
    std::swap(tape_, o.tape_);
    std::swap(id_, o.id_);
    return *this;
  }
  ~Tensor();
  bool defined() const { return tape_ != nullptr; }
  void reset() { *this = Tensor(); }
  Dims dims() const;
  Dtype dtype() const;
  bool requires_grad() const;

 private:
  friend class Tape;
  Tensor(Tape* tape, std::int32_t id) : tape_(tape), id_(id) {}
  Tape* tape_ = nullptr;
  std::int32_t id_ = -1;
};

// What an autograd node does with its gradient; its saved tensors and edges say the rest.
enum class Rule : std::uint8_t {
  accumulate,     // a leaf: keep the gradient
  pass,           // the same gradient to every input, cast and summed to its shape: add, to, clone, expand
  negate_second,  // sub
  view,           // reshape to the input's sizes: view, unsafe_view, squeeze
  transpose,
  slice,          // zeros of the input's size, and the gradient copied into them
  split,          // several outputs, one input: their gradients joined by cat
  cat,            // views of the gradient
  scale,          // one new tensor: by a number, by what was saved
  product,        // mul: per input that wants one, gradient times the other operand
  power,          // pow(2), pow(3): three tensors
  rsqrt,
  mean,           // expand, divide
  sum,            // expand
  matmul,         // mm, addmm, bmm
  grouped,        // rows in groups, each times a matrix of its own: torch._grouped_mm
  embedding,
  gather,         // zeros, scatter: gather, index
  index_add,      // in place: the gradient itself, and its rows
  pad,            // a copy of the part that was there before
  layer_norm,
  rms_norm,       // torch's fused kernel
  attention,
  nll,            // mse_loss too
  checkpoint,     // runs its block again, then backward through it
  quantized,      // frozen weight dequantised again: bitsandbytes' MatMul4Bit
  hook,           // runs a callback, passes the gradient on
  function,       // written in Python: its own backward runs
};

struct Edge { std::int32_t node = -1; std::int32_t slot = 0; };

// How torch.utils.checkpoint is called.
struct CheckpointForm {
  bool reentrant = false;       // the older form
  bool early_stop = true;       // of the newer one: a block that runs again stops once everything saved is there
  std::vector<Tensor*> gives = {};  // of the newer one: names of what the block is given beside its input and nobody needs once it has run again
  // create_selective_checkpoint_contexts: whether results of an op of the block, the count-th of its kind from 1 on, are kept and not computed again
  enum class Op : std::uint8_t { product, attention };
  std::function<bool(Op op, int count)> keeps = nullptr;
};


struct TapeOptions {
  // An input buffer adds a second gradient onto the first when it alone holds it, and ops of ops write into what they made. Under a Python dispatch mode,
  // as the oracle has, they never do.
  bool add_in_place = true;
  Multiprocessors gpu{};        // sums over rows are shared among
  bool retain_graph = false;    // of every backward pass: what nodes saved stays while its graph is named
  bool every_step = false;      // none is a copy of the one before (repeat_events)
  std::int64_t l2_cache = 0;    // bytes of the GPU's, where torch.compile times kernels before their first launch; 0: it does not
  int capability = 90;          // of the GPU, as 10 * major + minor
  bool host_seeds = false;      // the memory-efficient kernel's lie in the host's memory
};

class Tape {
 public:
  explicit Tape(std::int64_t device_batch, TapeOptions options = {});
  const TapeOptions& options() const { return options_; }
  Program take();                                        // what was noted; the tape is empty then
  void expect(std::size_t events) { p_.events.reserve(events), p_.tensors.reserve(events / 2), storage_refs_.reserve(events / 2); }  // about so many: room that is asked for once
  std::size_t events() const { return p_.events.size(); }
  bool repeat(std::int32_t first_event) { return !options_.every_step && repeat_events(p_, first_event); }  // the last to run: names do not follow what it moves
  ~Tape();
  Tape(const Tape&) = delete;
  Tape& operator=(const Tape&) = delete;

  // -- where the run stands
  void segment(const char* phase, const char* part, int micro_step = 0, Provenance provenance = Provenance::modelled);
  void at(int layer) { layer_ = static_cast<std::int16_t>(layer); }
  void category(Category c) { category_ = c; }
  Category category() const { return category_; }
  void stream(int s) { stream_ = static_cast<std::int8_t>(s); }
  void linear_saves_input(bool on) { linear_saves_input_ = on; }  // of frozen weights too: DeepSpeed's own linear function
  bool grad_enabled() const { return grad_; }
  bool in_backward() const { return ready_ != nullptr; }  // where a block of an older checkpoint runs again
  void grad_enabled(bool on) { grad_ = on; }
  // An evaluation: nothing is recorded, no kernel makes what only its backward would read, and tensors are of the evaluation's batch, which no device batch changes.
  void evaluates(bool on) { evaluates_ = on, grad_ = !on; }
  // autocast: the dtype products are computed in, or none; leaving it drops the cache of cast weights
  void enter_autocast(Dtype d) { autocast_ = d; }
  void leave_autocast();
  std::optional<Dtype> autocast() const { return autocast_; }
  // inside an op that autocast casts the inputs of; its cache stays
  void suspend_autocast() { autocast_.reset(); }
  void resume_autocast(std::optional<Dtype> d) { autocast_ = d; }

  // -- tensors that no op makes
  Tensor empty(const char* role, Dims d, Dtype dtype, std::int64_t padding = 0);  // padding: elements that its memory has beside
  Tensor empty(const char* role, Dims d, Dtype dtype, Category category);        // on its own account
  Tensor onto(Tensor old, const char* role, Dims d, Dtype dtype, std::int64_t padding = 0);                // in the memory of `old`, which nobody else names: the allocator is not asked
  Tensor buffer(const char* role, std::int64_t elements, Dtype dtype, Category category, int stream = 0);  // flat, of no batch
  Tensor parameter(const char* role, Dims d, Dtype dtype, bool requires_grad);
  // A parameter whose storage comes and goes under its names, as FSDP's resize_ makes it; nothing at first. stored: elements when it is there.
  Tensor hollow_parameter(const char* role, Dims d, std::int64_t stored, Dtype dtype, bool requires_grad);
  void resize(const Tensor& t, bool full);               // no change: nothing happens
  // `name` and every copy of it mean what `meaning` does from now on, as a module's attribute that is set anew
  void rename(const Tensor& name, const Tensor& meaning);
  // resize to nothing, where nodes hold what they saved of it as a tensor of their own: a part of it, or all (detach()); theirs stays as long as they do
  void leave_to_saved(const Tensor& t, bool all);
  std::int32_t storage_of(const Tensor& t) const { return value(t).storage; }  // its place in Program::tensors
  Tensor gradient(const Tensor& parameter) const;        // .grad, or undefined
  void set_gradient(const Tensor& parameter, Tensor g);
  void zero_grad(const Tensor& parameter);               // set_to_none
  // called when the gradient of a parameter has been kept, by autograd or, told by kept_gradient(), by who set it
  void on_gradient(const Tensor& parameter, std::function<void()> call);
  void kept_gradient(const Tensor& parameter);
  // torchtune's OffloadActivations (offload.cpp): what nodes save meanwhile goes to the host, and comes back for them
  void offload(bool on) { offloads_ = on; }
  // -- views: nothing is allocated
  Tensor view(const Tensor& x, std::initializer_list<std::int64_t> sizes);
  Tensor view(const Tensor& x, Dims to);
  Tensor transpose(const Tensor& x, int a, int b);
  Tensor expand(const Tensor& x, Dims to);
  Tensor slice(const Tensor& x, int dim, std::int64_t length, bool fixed = false);  // fixed: whatever the batch
  std::vector<Tensor> split(const Tensor& x, int dim, std::span<const std::int64_t> lengths);
  Tensor detach(const Tensor& x);

  // -- ops
  Tensor reshape(const Tensor& x, Dims to, const char* role);   // view, or a copy
  Tensor contiguous(const Tensor& x, const char* role);
  Tensor repeated(const Tensor& x, std::int64_t times, const char* role);
  Tensor clone(const Tensor& x, const char* role);              // preserving the layout
  Tensor to(const Tensor& x, Dtype d, const char* role);
  Tensor add(const Tensor& a, const Tensor& b, const char* role);
  Tensor sub(const Tensor& a, const Tensor& b, const char* role);
  Tensor mul(const Tensor& a, const Tensor& b, const char* role);
  Tensor scale(const Tensor& x, const char* role);              // by a number; also neg
  Tensor shift(const Tensor& x, const char* role);              // plus a number
  // one output; backward makes one tensor from the gradient and the input (silu, gelu) or the result (tanh, relu, sigmoid, softmax, exp)
  enum class Keep : std::uint8_t { input, result };
  Tensor unary(const Tensor& x, Keep keep, const char* role, std::optional<Dtype> out = std::nullopt);
  Tensor power(const Tensor& x, const char* role);
  Tensor rsqrt(const Tensor& x, const char* role);
  Tensor mean_last(const Tensor& x, const char* role);
  Tensor sum(const Tensor& x, int dim, const char* role, std::optional<Dtype> out = std::nullopt);  // over a dimension, which goes
  Tensor masked(const Tensor& x, const Tensor& mask, const char* role);  // masked_fill
  Tensor masked_in_place(const Tensor& x, const Tensor& mask);
  Tensor softmax(const Tensor& x, const char* role, std::optional<Dtype> out = std::nullopt);
  Tensor log_softmax(const Tensor& x, const char* role);        // over the last dimension
  Tensor add_in_place(const Tensor& a, const Tensor& b);
  // ATen's add_() where tensors are not subclasses, as the oracle's are; there a new one
  Tensor added_in_place(const Tensor& a, const Tensor& b, const char* role) { return options_.add_in_place ? add_in_place(a, b) : add(a, b, role); }
  Tensor leaf(const Tensor& x);                                 // the same storage, requires_grad_()
  Tensor cat(std::span<const Tensor> parts, int dim, const char* role, std::optional<Dtype> dtype = std::nullopt);
  Tensor mm(const Tensor& a, const Tensor& b, const char* role, const Tensor& bias = {});   // two dimensions
  Tensor bmm(const Tensor& a, const Tensor& b, const char* role);                           // three
  Tensor matmul(const Tensor& a, const Tensor& b, const char* role);                        // four and four, or n and two
  Tensor grouped(const Tensor& rows, const Tensor& weights, const Tensor& ends, const char* role);  // [S, K] and [E, K, N]: [S, N]; ends: where each group's rows end
  Tensor linear(const Tensor& x, const Tensor& w, const char* role, const Tensor& bias = {});
  Tensor conv1d(const Tensor& rows, const Tensor& w, const Tensor& bias, const char* role);  // transformers' Conv1D: addmm with an untransposed weight
  Tensor convolution(const Tensor& x, const Tensor& w, Dims out, const char* role);          // conv1d of width 1; the kernel's own workspace is not known
  Tensor index_copy(const Tensor& into, const Tensor& index, const Tensor& rows);            // not in place
  Tensor index_put(const Tensor& into, const Tensor& index, const Tensor& rows);  // in place
  Tensor index_add(const Tensor& into, const Tensor& index, const Tensor& rows);  // in place; index_copy_ too
  Tensor embedding(const Tensor& table, const Tensor& ids, const char* role);
  Tensor gather(const Tensor& x, const Tensor& index, Dims out, const char* role);          // rows of x
  Tensor index(const Tensor& x, const Tensor& index, Dims out, const char* role, const Tensor& second = {});  // the same as x[index] or x[index, second], whose gradient sorts the index
  Tensor dropout(const Tensor& x, double p, const char* role, std::optional<Dtype> made = std::nullopt);  // made: of the result's memory, where the graph has another
  // The memory of `made` as what the graph has of x in dtype d, where a block runs again in another dtype than the graph's.
  Tensor in_graph(const Tensor& made, const Tensor& x, Dtype d);
  Tensor layer_norm(const Tensor& x, const Tensor& w, const Tensor& b, const char* role);
  Tensor rms_norm(const Tensor& x, const Tensor& w, const char* role);      // w: undefined for none
  // q, k, v: [B, H or K, T, h]; mask: additive, or undefined. scaled_dot_product_attention with one backend; out [B, H, T, h]. ends: of FlashAttention's kernels of varying lengths,
  // where each sequence of a row ends; kept with the rest, where it is given.
  Tensor attention(Attention kind, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& mask, double dropout, const char* role, const Tensor& ends = {});
  // What its backward kernel takes beside the gradients. q, k, v: [B, H or K, T, h].
  void attention_scratch(Attention kind, const Dims& q, const Dims& k, const Dims& v, Dtype dtype, bool dropout);
  // What timing a kernel that writes onto these takes (ProgramLayout::time_kernel). spares: where copies would be a new peak they are the host's. Nothing where the options have no L2 cache.
  void time_kernel(std::span<const Tensor> in_place, bool spares);
  Tensor cross_entropy(const Tensor& logits, const Tensor& targets, const char* role, bool mean = true);  // otherwise one per row
  Tensor squared_error(const Tensor& x, const Tensor& targets);
  // bitsandbytes' 4-bit product: the weight is dequantised for the call and again in backward
  struct FourBit {
    bool via_half = false;       // quantised from fp16: dequantised to it first, then cast
    bool nested = false;         // scales quantised too: fp32 ones are made for the call
    bool holds_input = false;    // bitsandbytes 0.41 and 0.42: the node names its input until it goes itself
  };
  Tensor linear_4bit(const Tensor& x, const Tensor& packed, Dims weight, const char* role, FourBit how);
  // torch.utils.checkpoint: `block` runs now without gradients and again in backward
  Tensor checkpoint(std::function<Tensor(const Tensor&)> block, const Tensor& x, CheckpointForm form);
  Tensor checkpoint(std::function<Tensor(const Tensor&)> block, const Tensor& x, bool reentrant) { return checkpoint(std::move(block), x, CheckpointForm{.reentrant = reentrant}); }
  // torch.autograd.Function: `out` was made with gradients off, or names an input; `backward` gets its gradient and what was saved (a handle it
  // resets lets go at once, as clearing .data does) and gives a gradient, or none, per input. Nothing is recorded when no input wants one.
  using Backward = std::function<std::vector<Tensor>(const Tensor& gradient, std::vector<Tensor>& saved)>;
  Tensor function(const Tensor& out, std::span<const Tensor> inputs, std::span<const Tensor> saved, const char* role, Backward backward);
  // The same of several outputs; a gradient that none gave is undefined.
  using BackwardOfAll = std::function<std::vector<Tensor>(std::span<const Tensor> gradients, std::vector<Tensor>& saved)>;
  std::vector<Tensor> function(std::span<const Tensor> outs, std::span<const Tensor> inputs, std::span<const Tensor> saved, const char* role, BackwardOfAll backward);
  // the same graph without the memory: what is left of x when its .data is replaced
  Tensor graph_only(const Tensor& x);
  // `call` runs when the gradient passes here
  Tensor hook(const Tensor& x, std::function<void()> call);

  // `call` runs once, when a matrix product first has room for its result, outside or inside a backward pass: each has a thread of its own, which then
  // takes its cuBLAS workspace.
  void on_first_product(bool inside, std::function<void()> call) { first_product_[inside ? 1 : 0] = std::move(call); }
  void multiplied() { run_once(first_product_[ready_ != nullptr ? 1 : 0]); }  // there is one that is no op's
  // The same of a product with a bias, outside or inside a backward pass: cuBLASLt runs it, with a workspace of its own for each thread.
  void on_first_biased_product(bool inside, std::function<void()> call) { first_biased_[inside ? 1 : 0] = std::move(call); }

  void backward(const Tensor& loss);
  void backward(const Tensor& out, Tensor gradient);            // of an output that is no loss

  // -- work (eager_work.cpp): while a list is given, what each kernel computes and moves goes there, in order. An op tells it by its rule when its result
  // is attached, a node when it has run backward; a tensor that is made beside them is a kernel that reads and writes as much.
  void tell_work_to(std::vector<Work>* list);            // null: nobody
  void tell(Work w);                                     // of kernels that are no op's: optimizers', and of ops that say more than their rule
  void tell_traffic(const char* role, double bytes, std::int64_t launches = 1);
  void multiply(const Tensor& a, const Tensor& b, const char* role) { if (told_ != nullptr) tell_product(described(a), described(b), role); }  // into what is there
  void send(const char* role, double bytes, Work::Beside beside);  // a collective: bytes of the whole tensors
  void causal(bool on) { causal_ = on; }                 // of attention() calls
  // How grouped() multiplies: by one kernel for all groups of bf16, which takes memory for its arguments on so many multiprocessors; group by group into
  // the result; or by transformers' own operator, which saves both operands and makes both gradients, whoever wants them.
  struct Grouping { int multiprocessors = 0; bool by_transformers = false; };
  void groups(Grouping how) { grouping_ = how; }
  void sequences(std::int64_t n) { sequences_ = n; }     // that a row of attention() calls is made of, each as long: FlashAttention's kernels of varying lengths; 0: they are not asked

 private:
  friend class Tensor;
  struct Value {
    Dims dims;
    std::int32_t storage = -1, refs = 0, node = -1, slot = 0, leaf = -1;
    Dtype dtype = Dtype::fp32;
    bool requires_grad = false;
    bool view = false;              // ATen's views hold what they are views of, with gradients off too: their storage has two owners
  };
  struct Saved { Dims dims; std::int32_t storage = -1; Dtype dtype = Dtype::fp32; std::int64_t packed = 0; bool part = false; };  // part: of a weight, a tensor of its own; packed: offload's number, without a storage while the host has it
  struct Input { Dims dims; Edge edge; Dtype dtype = Dtype::fp32; };
  struct Node {
    Rule rule = Rule::pass;
    Category category = Category::activations;
    std::int16_t layer = -1;
    Dtype dtype = Dtype::fp32;      // of the output
    std::int32_t refs = 0, pending = 0, walk = 0;
    std::int32_t call = -1;         // checkpoint: its block; hook: its callback; function: its backward; accumulate: its leaf
    std::int64_t detail = 0, sequence = 0;
    std::optional<Dtype> autocast;  // checkpoint: as it was in forward
    Dims out;
    const char* role = "";
    std::vector<Input> inputs;
    std::vector<Saved> saved;
    std::vector<std::int32_t> held; // storages that a Python attribute names: they go with the node, not with what it saved
    std::vector<Tensor> grad;       // input buffer, per output
    std::vector<Tensor> opened;     // function: what it saved, while its backward runs
  };

  std::int32_t new_value(const Value& v);
  Tensor place(const char* role, Dims d, std::int64_t elements, Dtype dtype, bool hollow);
  Tensor wrap(const Value& v) { return Tensor(this, new_value(v)); }
  Value& value(const Tensor& t) { return values_[static_cast<std::size_t>(t.id_)]; }
  const Value& value(const Tensor& t) const { return values_[static_cast<std::size_t>(t.id_)]; }
  Node& node(std::int32_t n) { return nodes_[static_cast<std::size_t>(n) / kNodesAPiece][static_cast<std::size_t>(n) % kNodesAPiece]; }
  void keep(std::int32_t id) { ++values_[static_cast<std::size_t>(id)].refs; }
  void drop(std::int32_t id);
  void keep_storage(std::int32_t s) { ++storage_refs_[static_cast<std::size_t>(s)]; }
  void drop_storage(std::int32_t s);
  void drop_node(std::int32_t n);
  void release_saved(std::int32_t n);
  Tensor alias(const Tensor& x, Dims d);                 // the same storage, no autograd
  Tensor view_of(const Tensor& x, Dims d);               // likewise, by an op that makes views
  std::int32_t record(Rule rule, std::span<const Tensor> inputs, const char* role, bool always = false);
  std::int32_t record(Rule rule, std::initializer_list<Tensor> inputs, const char* role) { return record(rule, std::span(inputs.begin(), inputs.size()), role); }
  void save(std::int32_t n, const Tensor& t);            // nothing when n is none
  Saved packed(Saved s);                                 // on its way to the host, where it is large enough
  void unpack(std::int32_t n);
  void after_unpacking();
  void forget_unpacked();
  void save_other(std::int32_t n, const Tensor& a, const Tensor& b);
  Tensor attach(Tensor out, std::int32_t n, int slot = 0);
  Tensor saved(std::int32_t n, int i);
  std::int32_t new_node();
  Edge edge_of(const Tensor& t);
  Tensor cast_input(const Tensor& x);                    // autocast's rule for products
  Tensor linear_product(const Tensor& x, const Tensor& w, const char* role, const Tensor& bias);
  Tensor full_precision(const Tensor& x, const char* role);  // and for its fp32 list
  Tensor pointwise(std::span<const Tensor> inputs, const char* role, std::optional<Dtype> out = std::nullopt);
  Tensor copy_result(const Tensor& x, Dims d, const char* role);
  Tensor contiguous_copy(const Tensor& x, const char* role);
  const char* node_role(const Tensor& x) const;          // of the storage it names
  Tensor scratch(const char* role, Dims d, Dtype dtype);
  Tensor contiguous_inside(const Tensor& x, const char* role);
  void grouping_scratch(std::int64_t groups, Dtype dtype);
  Tensor padded(const Tensor& x, std::int64_t multiple, const char* role);  // rows to a multiple of elements
  Tensor dequantized(Dims weight, Dtype first, Dtype dtype, bool nested, const char* role);

  void count_dependencies(std::int32_t root);
  void run(std::int32_t n);
  void apply(std::int32_t n, std::vector<Tensor>& out);
  void validate(const Input& wanted, Tensor& g, const char* role);
  void deliver(Edge edge, Tensor g);
  void accumulate(std::int32_t n);
  Tensor sum_to(const Tensor& g, const Dims& d, const char* role);
  Tensor summed(const Tensor& x, const Dims& d, const char* role, std::optional<Dtype> out = std::nullopt);  // the kernel's own memory beside the result
  Tensor added_to_zeros(std::int32_t n);
  void backward_index(std::int32_t n, std::vector<Tensor>& out);
  void backward_attention(std::int32_t n, std::vector<Tensor>& out);
  void backward_norm(std::int32_t n, std::vector<Tensor>& out);
  Tensor backward_split(std::int32_t n);
  Tensor backward_checkpoint(std::int32_t n);
  std::vector<Tensor> kept_results(CheckpointForm::Op op);
  void keep_results(CheckpointForm::Op op, std::initializer_list<Tensor> results);
  // before_saved: called before the first node that saved something
  void run_from(std::int32_t root, Tensor g, std::int64_t floor = 0, std::function<void()> before_saved = nullptr);
  void bring_forward(std::size_t first, std::size_t middle);
  void forget_after_last_save(std::size_t first_event);
  void backward_product(std::int32_t n, std::vector<Tensor>& out);
  void backward_matmul(std::int32_t n, std::vector<Tensor>& out);
  void backward_grouped(std::int32_t n, std::vector<Tensor>& out);
  void backward_embedding(std::int32_t n, std::vector<Tensor>& out);
  const Input& input(std::int32_t n, std::size_t i) { return node(n).inputs[i]; }
  bool wants(std::int32_t n, std::size_t i) { return input(n, i).edge.node >= 0; }

  TapeOptions options_;
  bool parts_of_weights_ = false;                        // nodes have saved some
  Program p_;
  HighWater high_water_;
  std::vector<Value> values_;
  std::vector<std::int32_t> free_values_;
  std::vector<std::int32_t> storage_refs_;               // as Program::tensors
  std::vector<bool> hollow_;                             // the same: named, and without memory
  // Nodes stay where they are, and what was used keeps its lists' memory for the next.
  static constexpr std::size_t kNodesAPiece = 256;
  std::vector<std::unique_ptr<Node[]>> nodes_;
  std::int32_t node_count_ = 0;
  std::vector<std::int32_t> free_nodes_;
  std::vector<std::int32_t> dropped_;                    // nodes whose last reference may be gone
  std::deque<std::vector<Tensor>> given_;                // by the nodes that run now, one inside the other: gradients, per input
  std::size_t running_ = 0;                              // of them
  std::vector<Edge> edges_;                              // of a node that is being recorded
  struct Cut { int dim; std::vector<std::int64_t> lengths; };
  std::vector<Cut> cuts_;                                // of split's nodes
  struct Selection {                                     // of one call of a selective checkpoint
    std::function<bool(CheckpointForm::Op, int)> keeps;
    std::array<int, 2> counts{};
    std::array<std::deque<std::vector<Tensor>>, 2> kept;
    bool again = false, now = false;                     // the block runs again; what the op at hand makes is kept
  };
  struct Checkpointed { std::function<Tensor(const Tensor&)> block; bool early_stop = true; std::shared_ptr<Selection> selection; std::vector<Tensor*> gives; };
  std::vector<Checkpointed> blocks_;
  Selection* selecting_ = nullptr;                       // of the block that runs
  std::vector<std::function<void()>> hooks_;
  std::function<void()> first_product_[2], first_biased_[2];
  struct Operand { Dims dims; std::int32_t storage = -1; Dtype dtype = Dtype::fp32; double bytes() const; };
  struct Asked { Rule rule = Rule::accumulate; std::vector<Operand> in; bool open = false; };
  Operand described(const Tensor& t) const { return {value(t).dims, value(t).storage, value(t).dtype}; }
  void ask(Rule rule, std::span<const Tensor> inputs);
  void tell_forward(const Tensor& out);
  void tell_backward(std::int32_t n, const Operand& gradient, const std::vector<Tensor>& out);
  void tell_product(const Operand& a, const Operand& b, const char* role);
  void tell_grouped(const Operand& rows, const Dims& weights, const char* role, bool of_weights);
  void tell_attention(Attention kind, bool masked, std::span<const Operand> in, const char* role, bool gradient);
  double take_made();                                    // bytes of what was made since work was told last: theirs it is that asks
  void settle_made(std::int32_t beside = -1);            // tells what nobody took as kernels of its own, but for one storage

  static void run_once(std::function<void()>& call) { if (call) std::exchange(call, nullptr)(); }
  std::vector<BackwardOfAll> functions_;
  struct Leaf { std::int32_t storage = -1, node = -1; Tensor grad; std::function<void()> call; bool made = false; };  // made: an op made it, as PyTorch sees it
  std::vector<Leaf> leaves_;
  struct Cast { std::int32_t storage; Tensor copy; };
  std::vector<Cast> casts_;                              // autocast's cache
  struct Stashed { std::int64_t packed; std::int32_t storage; };
  std::deque<Stashed> leaving_;                          // offload: on the way to the host
  std::vector<std::int32_t> back_, back_before_;         // storages that came back for the node that unpacks, and for those before it
  std::int64_t packed_ = 0;
  bool in_newer_ = false;                                // what runs was made again by a checkpoint of the newer form
  std::int32_t unpacker_ = -1;                           // a checkpoint unpacks for the first node of its block that wants something saved
  bool offloads_ = false;
  using Ready = std::priority_queue<std::pair<std::int64_t, std::int32_t>>;
  Ready* ready_ = nullptr;                               // of the backward pass that runs
  struct Around { Ready* ready = nullptr; std::int64_t floor = 0; };
  Around around_;                                        // the pass around a block's that runs again, and which nodes are its own
  std::int32_t first_saver_ = -1;                        // of the nodes of a block that runs again, the first that saved something
  std::optional<Dtype> autocast_;
  Category category_ = Category::activations;
  std::int16_t layer_ = -1;
  std::int8_t stream_ = 0;
  std::int32_t last_op_ = -1, walk_ = 0;
  std::int64_t sequence_ = 0;
  std::size_t tensors_at_last_save_ = 0;
  std::vector<Work>* told_ = nullptr;
  Asked asked_;                                          // the op that runs
  std::vector<std::int32_t> made_;                       // storages since work was told last
  std::int64_t calls_ = 0;                               // likewise: of the dispatcher, that launch nothing
  std::size_t work_at_last_save_ = 0;
  bool causal_ = true;
  Grouping grouping_;
  std::int64_t sequences_ = 0;                           // 0: rows are not packed
  bool evaluates_ = false;
  bool grad_ = true, training_ = true, linear_saves_input_ = false, in_linear_ = false;
  bool unrecorded_ = false;                              // while gradients are off: some op would have been recorded
};

// Code inside torch.no_grad(), or that calls ops inside a torch.autograd.Function: nothing is recorded. (empty() never is.)
class NoGrad {
 public:
  explicit NoGrad(Tape& tape) : tape_(tape), before_(tape.grad_enabled()) { tape_.grad_enabled(false); }
  ~NoGrad() { tape_.grad_enabled(before_); }
  NoGrad(const NoGrad&) = delete;
  NoGrad& operator=(const NoGrad&) = delete;

 private:
  Tape& tape_;
  bool before_;
};

}  // namespace dryfit::eager

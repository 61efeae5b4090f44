// The reader of capture files. See capture.hpp; the form is described in docs/capture.md.
#include "capture/capture.hpp"

#include <algorithm>
#include <array>
#include <deque>
#include <optional>
#include <span>
#include <unordered_set>

#include "base/text.hpp"
#include "passes/embedding_scratch.hpp"

namespace dryfit {

// Text that outlives the reader: TensorInfo and Segment point at it.
class CaptureNames {
 public:
  const char* of(std::string_view text) {
    const auto found = index_.find(text);
    if (found != index_.end()) return found->data();
    const std::string& kept = texts_.emplace_back(text);
    return index_.insert(kept).first->data();
  }

 private:
  std::deque<std::string> texts_;  // never moves a text
  std::unordered_set<std::string_view> index_;
};

namespace {

constexpr std::string_view kFirstWord = "dryfit-capture";
constexpr std::int64_t kMostBytes = std::int64_t{1} << 48;       // of one tensor: more than any GPU holds
constexpr std::int64_t kMostElements = std::int64_t{1} << 40;    // of a kernel's argument
constexpr std::int64_t kMostAlive = std::int64_t{1} << 50;       // bytes at once: sums stay far from overflow
constexpr std::int64_t kMostEvents = std::int64_t{1} << 28;      // what indices of a Program hold, with room
constexpr std::size_t kMostNotes = 100;
constexpr std::string_view kCapturedPhases[] = {"load", "first_step", "train_step", "validation"};
constexpr std::string_view kWorkspace = "cublas_workspace";

struct KnownKernel { std::string_view op; CapturedKernel::Kind kind; Attention attention; };
constexpr KnownKernel kKernels[] = {{"_scaled_dot_product_flash_attention_backward", CapturedKernel::Kind::attention_backward, Attention::flash},
                                    {"_scaled_dot_product_efficient_attention", CapturedKernel::Kind::attention, Attention::efficient},
                                    {"_scaled_dot_product_efficient_attention_backward", CapturedKernel::Kind::attention_backward, Attention::efficient},
                                    {"_scaled_dot_product_cudnn_attention_backward", CapturedKernel::Kind::attention_backward, Attention::cudnn},
                                    {"embedding_dense_backward", CapturedKernel::Kind::embedding_backward, Attention::automatic}};

struct TorchDtype { std::string_view name; Dtype dtype; };
constexpr TorchDtype kDtypes[] = {{"float32", Dtype::fp32}, {"bfloat16", Dtype::bf16}, {"float16", Dtype::fp16}, {"float8_e4m3fn", Dtype::fp8_e4m3}, {"float8_e5m2", Dtype::fp8_e5m2},
                                  {"int64", Dtype::int64}, {"int32", Dtype::int32}, {"uint8", Dtype::uint8}, {"bool", Dtype::bool8}, {"float64", Dtype::fp64}};

// Names come from a stranger's file and go to terminals and pictures.
std::string printable(std::string_view text, std::size_t most) {
  std::string out;
  for (char c : text.substr(0, most)) out += static_cast<unsigned char>(c) < 32 || c == 127 ? '?' : c;
  return out;
}

// "model.layers.3.self_attn.q_proj" -> 3 and "self_attn.q_proj": blocks are numbered apart, as in the engine's own programs.
std::int16_t take_layer(std::string& owner) {
  constexpr std::string_view kStacks[] = {"h", "layers", "layer", "blocks", "block"};
  std::size_t start = 0;
  for (std::string_view before; start < owner.size();) {
    const std::size_t end = std::min(owner.find('.', start), owner.size());
    const std::string_view part = std::string_view(owner).substr(start, end - start);
    if (!part.empty() && part.size() < 5 && std::ranges::all_of(part, is_digit) && std::ranges::find(kStacks, before) != std::end(kStacks)) {
      const auto layer = parse_int(part, "layer").value_or(-1);
      owner.erase(0, std::min(end + 1, owner.size()));
      return static_cast<std::int16_t>(layer);
    }
    before = part;
    start = end + 1;
  }
  return -1;
}

}  // namespace

struct CaptureReader::Impl {
  std::string carry;
  std::int64_t line = 0;
  bool begun = false, ended = false;
  std::optional<Error> problem;
  Capture capture;
  std::shared_ptr<CaptureNames> names = std::make_shared<CaptureNames>();
  std::vector<bool> alive;
  std::int64_t live = 0;  // bytes

  bool refuse(std::string message, std::string hint = "write it anew: python -m dryfit.capture -- train.py", std::string code = "bad_capture") {
    problem = Error{std::move(code), std::move(message), std::move(hint), "line " + std::to_string(line)};
    return false;
  }

  std::optional<std::int64_t> number(std::string_view text, std::string_view what, std::int64_t most) {
    const auto n = parse_int(text, what);
    if (n && *n >= 0 && *n <= most) return *n;
    refuse(std::string(what) + " '" + printable(text, 30) + "' is not a number from 0 to " + std::to_string(most));
    return std::nullopt;
  }

  bool header(std::string_view text) {
    const auto words = split(text, ' ');
    if (words.size() != 2 || words[0] != kFirstWord) return refuse("this is not a capture", "python -m dryfit.capture -- train.py writes one; its first line is 'dryfit-capture 1'", "not_a_capture");
    const auto version = parse_int(words[1], "version");
    if (!version || *version < 1) return refuse("the version '" + printable(words[1], 20) + "' is not a number", "its first line is 'dryfit-capture 1'", "not_a_capture");
    if (*version > kCaptureVersion) return refuse("this capture has version " + std::to_string(*version) + "; this dryfit reads 1", "use the dryfit that wrote it, or a newer one", "newer_capture");
    begun = true;
    return true;
  }

  bool take(std::string_view text) {
    ++line;
    if (!text.empty() && text.back() == '\r') text.remove_suffix(1);
    if (!begun) return header(text);
    if (text.empty() || text[0] == '#') return true;
    if (ended) return refuse("there is more after 'end'");
    const auto f = split(text, '\t');
    if (f[0] == "+") return allocation(f);
    if (f[0] == "-") return release(f);
    if (f[0] == "segment") return segment(f);
    if (f[0] == "kernel") return kernel(f);
    if (f[0] == "end") return ended = true;
    return fact(f);
  }

  bool fact(std::span<const std::string_view> f) {
    CapturedRun& run = capture.run;
    if (f.size() < 2) return refuse("'" + printable(f[0], 30) + "' has no value");
    struct Text { std::string_view key; std::string CapturedRun::*field; };
    for (const Text& t : {Text{"script", &CapturedRun::script}, Text{"torch", &CapturedRun::torch}, Text{"gpu", &CapturedRun::gpu}, Text{"alloc_conf", &CapturedRun::alloc_conf}, Text{"compile", &CapturedRun::compile}}) {
      if (f[0] == t.key) return (run.*t.field = printable(f[1], 2000)), true;
    }
    struct Count { std::string_view key; std::int64_t CapturedRun::*field; };
    for (const Count& c : {Count{"parameters", &CapturedRun::parameters}, Count{"steps", &CapturedRun::steps}, Count{"micro_steps", &CapturedRun::micro_steps}}) {
      if (f[0] != c.key) continue;
      const auto n = number(f[1], c.key, kMostBytes);
      if (n) run.*c.field = *n;
      return n.has_value();
    }
    if (f[0] == "capability") {
      const auto parts = split(f[1], '.');
      const auto major = number(parts[0], "capability", 99), minor = number(parts.size() > 1 ? parts[1] : "0", "capability", 99);
      if (!major || !minor) return false;
      run.compute_major = static_cast<int>(*major), run.compute_minor = static_cast<int>(*minor);
      return true;
    }
    if (f[0] == "gpus") {
      const auto n = number(f[1], "gpus", 1 << 20);
      if (n) capture.gpus = std::max<std::int64_t>(1, *n);
      return n.has_value();
    }
    if (f[0] == "note") {
      if (run.notes.size() < kMostNotes) run.notes.push_back(printable(f[1], 400));
      return true;
    }
    return true;  // later versions of the writer may say more; only events must be understood
  }

  bool segment(std::span<const std::string_view> f) {
    if (f.size() != 4) return refuse("a segment has a phase, a part and a micro-step");
    const auto phase = std::ranges::find(kCapturedPhases, f[1]);
    if (phase == std::end(kCapturedPhases)) return refuse("the phase '" + printable(f[1], 30) + "' is not known", did_you_mean(f[1], kCapturedPhases, "phases: load, first_step, train_step, validation"));
    const auto micro = number(f[3], "micro-step", 1 << 30);
    if (!micro) return false;
    auto& segments = capture.program.segments;
    const auto at = static_cast<std::int32_t>(capture.program.events.size());
    if (!segments.empty() && segments.back().first_event == at) segments.pop_back();
    segments.push_back({at, phase->data(), names->of(printable(f[2], 40)), static_cast<std::int32_t>(*micro), Provenance::modelled});
    return true;
  }

  bool room() {
    if (capture.program.segments.empty()) return refuse("an event stands before the first segment");
    if (static_cast<std::int64_t>(capture.program.events.size()) >= kMostEvents) return refuse("there are more than " + std::to_string(kMostEvents) + " events", "capture fewer steps: --steps 2");
    return true;
  }

  bool read_shape(std::string_view text, Shape& out) {
    if (text == "-") return true;
    for (std::string_view part : split(text, 'x')) {
      const auto n = number(part, "a dimension", kMostBytes);
      if (!n) return false;
      if (out.rank == out.dim.size()) {  // shown only: what has more dimensions is shown with the first ones together
        for (std::size_t i = 1; i < out.dim.size(); ++i) (i == 1 ? out.dim[0] : out.dim[i - 1]) = i == 1 ? (Bytes(out.dim[0]) * out.dim[1]).count : out.dim[i];
        --out.rank;
      }
      out.dim[out.rank++] = *n;
    }
    return true;
  }

  bool allocation(std::span<const std::string_view> f) {
    if (f.size() != 8) return refuse("an allocation has bytes, stream, category, dtype, shape, op and owner");
    if (!room()) return false;
    TensorInfo t;
    const auto bytes = number(f[1], "bytes", kMostBytes), stream = number(f[2], "stream", 127);
    if (!bytes || !stream || !read_shape(f[5], t.shape)) return false;
    t.bytes = *bytes, t.stream = static_cast<std::int8_t>(*stream);
    int category = 0;
    while (category < kCategories && name_of(static_cast<Category>(category)) != f[3]) ++category;
    if (category == kCategories) return refuse("the category '" + printable(f[3], 30) + "' is not known", "categories: weights, gradients, optimizer, activations, logits, workspace, communication");
    t.category = static_cast<Category>(category);
    const auto dtype = std::ranges::find(kDtypes, f[4], &TorchDtype::name);
    t.dtype = dtype == std::end(kDtypes) ? Dtype::uint8 : dtype->dtype;  // bytes are said apart; the type is only shown
    const std::string op = printable(f[6], 200);
    std::string owner = printable(f[7], 200);
    t.layer = take_layer(owner);
    t.role = names->of(owner.empty() ? op : op.empty() ? owner : owner + ": " + op);
    live += *bytes;
    if (live > kMostAlive) return refuse("more than a PiB is alive at once", "sizes are bytes");
    Program& p = capture.program;
    const auto index = static_cast<std::int32_t>(p.tensors.size());
    p.tensors.push_back(t);
    p.events.push_back({Event::Kind::alloc, index, index});
    alive.push_back(true);
    return true;
  }

  bool kernel(std::span<const std::string_view> f) {
    const auto known = f.size() > 1 ? std::ranges::find(kKernels, f[1], &KnownKernel::op) : std::end(kKernels);
    if (f.size() > 1 && known == std::end(kKernels)) return true;  // of a later writer
    if (f.size() != 7) return refuse("a kernel has op, stream, dtype, shapes, flags and owner");
    if (!room()) return false;
    const auto stream = number(f[2], "stream", 127);
    const auto dtype = std::ranges::find(kDtypes, f[3], &TorchDtype::name);
    if (!stream) return false;
    if (dtype == std::end(kDtypes)) return refuse("the dtype '" + printable(f[3], 30) + "' is not known", "dtypes: float32, bfloat16, float16");
    const auto shapes = split(f[4], ' ');
    const bool embedding = known->kind == CapturedKernel::Kind::embedding_backward;
    if (shapes.size() != (embedding ? 2 : 3)) return refuse("the shapes of " + std::string(known->op) + (embedding ? " are those of its ids and its table" : " are those of queries, keys and values"));
    std::array<std::array<std::int64_t, 4>, 3> sizes{};
    for (std::size_t i = 0; i < shapes.size(); ++i) {
      if (!read_sizes(shapes[i], embedding && i == 0 ? 0 : embedding ? 2 : 4, sizes[i])) return false;
    }
    CapturedKernel k{.kind = known->kind, .before_event = static_cast<std::int32_t>(capture.program.events.size()), .stream = static_cast<std::int8_t>(*stream)};
    std::string owner = printable(f[6], 200);
    k.layer = take_layer(owner);
    if (embedding) {
      k.ids = sizes[0][0], k.rows = sizes[1][0], k.width = sizes[1][1];
      if (k.ids > kMostElements / k.width) return refuse("the gradients of " + std::to_string(k.ids) + " ids, " + std::to_string(k.width) + " wide, are more than any GPU holds");
    } else {
      const auto& [q, keys, values] = sizes;
      const auto flags = split(f[5], ',');
      const auto says = [&](std::string_view flag) { return std::ranges::find(flags, flag) != flags.end(); };
      k.attention = {.kind = known->attention, .of = {q[0], q[1], q[2], keys[2], q[3], values[3], dtype->dtype, says("dropout")}, .key_heads = keys[1], .causal = says("causal")};
    }
    capture.kernels.push_back(k);
    return true;
  }

  // rank dimensions, each at least 1 and together at most kMostElements; rank 0: any number of them, as one.
  bool read_sizes(std::string_view text, std::size_t rank, std::array<std::int64_t, 4>& out) {
    const auto parts = split(text, 'x');
    if (rank > 0 && parts.size() != rank) return refuse("the shape '" + printable(text, 60) + "' has not " + std::to_string(rank) + " dimensions");
    std::int64_t all = 1;
    for (std::size_t i = 0; i < parts.size(); ++i) {
      const auto n = number(parts[i], "a dimension", kMostElements / all);
      if (!n) return false;
      if (*n == 0) return refuse("a dimension of '" + printable(text, 60) + "' is 0");
      all *= *n;
      if (rank > 0) out[i] = *n;
    }
    if (rank == 0) out[0] = all;
    return true;
  }

  bool release(std::span<const std::string_view> f) {
    if (f.size() != 2) return refuse("a free has the number of its allocation");
    if (!room()) return false;
    const auto which = number(f[1], "allocation", kMostEvents);
    if (!which) return false;
    if (*which >= static_cast<std::int64_t>(alive.size())) return refuse("allocation " + std::to_string(*which) + " is freed before it is made");
    if (!alive[static_cast<std::size_t>(*which)]) return refuse("allocation " + std::to_string(*which) + " is freed twice");
    alive[static_cast<std::size_t>(*which)] = false;
    live -= capture.program.tensors[static_cast<std::size_t>(*which)].bytes;
    const auto index = static_cast<std::int32_t>(*which);
    capture.program.events.push_back({Event::Kind::free, index, static_cast<std::int32_t>(alive.size() - 1)});
    return true;
  }
};

CaptureReader::CaptureReader() : impl_(std::make_unique<Impl>()) {}
CaptureReader::~CaptureReader() = default;
CaptureReader::CaptureReader(CaptureReader&&) noexcept = default;
CaptureReader& CaptureReader::operator=(CaptureReader&&) noexcept = default;

bool CaptureReader::feed(std::string_view bytes) {
  Impl& r = *impl_;
  while (!r.problem && !bytes.empty()) {
    const std::size_t end = bytes.find('\n');
    const std::string_view piece = bytes.substr(0, end);
    if (r.carry.size() + piece.size() > kLongestCaptureLine) {
      ++r.line;
      return r.begun ? r.refuse("a line is longer than 64 KiB") : r.refuse("this is not a capture", "python -m dryfit.capture -- train.py writes one; its first line is 'dryfit-capture 1'", "not_a_capture");
    }
    if (end == std::string_view::npos) {
      r.carry += piece;
      break;
    }
    if (r.carry.empty()) {
      r.take(piece);
    } else {
      r.carry += piece;
      r.take(std::exchange(r.carry, {}));
    }
    bytes.remove_prefix(end + 1);
  }
  return !r.problem;
}

Result<Capture> CaptureReader::finish() {
  Impl& r = *impl_;
  if (!r.problem && !r.carry.empty()) r.take(std::exchange(r.carry, {}));
  if (!r.problem && !r.begun) r.refuse("this is not a capture", "python -m dryfit.capture -- train.py writes one; its first line is 'dryfit-capture 1'", "not_a_capture");
  if (!r.problem && !r.ended) r.refuse("the capture breaks off: its last line is not 'end'", "write it anew, or copy it whole");
  if (!r.problem && r.capture.program.events.empty()) r.refuse("nothing was allocated on a GPU", "does the script move its model to \"cuda\"? see its notes: python -m dryfit.capture -- train.py", "empty_capture");
  if (r.problem) return std::unexpected(*r.problem);
  r.capture.run.names = r.names;
  return std::move(r.capture);
}

namespace {

// What a kernel takes inside, as of attention_scratch.hpp.
AttentionScratch inside(const CapturedKernel& k, int capability) {
  if (k.kind == CapturedKernel::Kind::attention_backward) {
    AttentionBackwardCall call = k.attention;
    call.capability = capability;
    return backward_scratch(call);
  }
  if (k.kind == CapturedKernel::Kind::attention) {
    const std::int64_t sums = efficient_sums(k.attention.of);
    return {{}, sums > 0 ? std::vector<ScratchTensor>{{"attn.out_sums", Dtype::uint8, {sums}}} : std::vector<ScratchTensor>{}};
  }
  if (k.ids <= kUnsortedIds) return {};
  const auto [segments, partials] = sorted_gradients(k.ids, k.rows);
  AttentionScratch out;
  for (const std::int64_t indices : {k.ids, k.ids, k.ids, std::int64_t{1}, segments, segments, std::int64_t{1}, partials}) out.beside.push_back({"wte.sorted", Dtype::int64, {indices}});
  out.beside.push_back({"wte.partial_sums", Dtype::fp32, {partials, k.width}});
  return out;
}

// The program's events with those of its kernels among them.
void lay_out_inside(Program& p, std::span<const CapturedKernel> kernels, int capability) {
  std::vector<Event> events;
  events.reserve(p.events.size() + 8 * kernels.size());
  std::size_t kernel = 0, segment = 0;
  const auto made = [&](const CapturedKernel& k, const ScratchTensor& s) {
    const auto index = static_cast<std::int32_t>(p.tensors.size());
    TensorInfo t{.role = s.role, .layer = k.layer, .dtype = s.dtype, .category = Category::workspace, .stream = k.stream, .shape = shape(s.size, false)};
    t.bytes = t.shape.numel() * size_of(s.dtype);
    p.tensors.push_back(t);
    events.push_back({Event::Kind::alloc, index, index});
    return index;
  };
  for (std::size_t at = 0; at <= p.events.size(); ++at) {
    for (; kernel < kernels.size() && static_cast<std::size_t>(kernels[kernel].before_event) == at; ++kernel) {
      const CapturedKernel& k = kernels[kernel];
      const AttentionScratch taken = inside(k, capability);
      play_scratch(taken.before, taken.beside, [&](const ScratchTensor& s) { return made(k, s); }, [&](std::int32_t index) { events.push_back({Event::Kind::free, index, index}); });
    }
    for (; segment < p.segments.size() && static_cast<std::size_t>(p.segments[segment].first_event) == at; ++segment) p.segments[segment].first_event = static_cast<std::int32_t>(events.size());
    if (at < p.events.size()) events.push_back(p.events[at]);
  }
  p.events = std::move(events);
}

}  // namespace

Program fit_to(const Capture& capture, const Target& target) {
  Program program = capture.program;
  if (!capture.kernels.empty()) lay_out_inside(program, capture.kernels, target.capability());
  for (TensorInfo& t : program.tensors) {
    if (t.role != kWorkspace) continue;
    t.bytes = cublas_workspace_bytes(target);
    t.shape = shape({t.bytes}, false);
  }
  return program;
}

}  // namespace dryfit

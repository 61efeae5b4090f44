// See step_time.hpp.
#include "speed/step_time.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

namespace dryfit {

namespace {

constexpr double kKernelGap = 2e-6;        // seconds between the end of a kernel's work and the start of the next one's
constexpr double kTileEnds = 1.5e-6;       // of a tile: its first operands arrive, its result leaves; two ways through memory
constexpr double kLaunch = 8e-6;           // of the host, a launch from compiled Python code
constexpr double kGraphCall = 35e-6;       // a compiled function is entered: guards of its own arguments, AOTAutograd's and Inductor's wrappers
constexpr double kGuard = 2.2e-6;          // one parameter's guards, in a model that is compiled whole
constexpr double kEagerLaunch = 10e-6;     // a launch through PyTorch's dispatcher
constexpr double kEagerCall = 3e-6;        // a call of it that launches nothing: a view, a number read on the host
constexpr double kCollective = 20e-6;      // start and end of a collective on one node

struct Tile { std::int64_t m, n; double share; };  // share of the best rate that its reuse of shared memory allows
constexpr Tile kTiles[] = {{128, 256, 1.0}, {256, 128, 1.0}, {128, 128, 0.95}, {128, 64, 0.85}, {64, 64, 0.7}};

// The best of a few tilings, with the sum over k split where the tiles would not fill the GPU.
double product_seconds(const Work& w, const GpuRates& r) {
  const double rate = gemm_rate(r, w.operands) / r.sms;
  double best = 1e30;
  for (const Tile& t : kTiles) {
    const std::int64_t tiles = ceil_div(w.m, t.m) * ceil_div(w.n, t.n) * w.count;
    for (std::int64_t split = 1; split <= 16; split *= 2) {
      if (split > 1 && w.k / split < 512) break;
      const double waves = static_cast<double>(ceil_div(tiles * split, r.sms));
      const double work = 2.0 * static_cast<double>(t.m * t.n) * static_cast<double>(ceil_div(w.k, split));
      const double partial = split == 1 ? 0 : static_cast<double>(tiles * split) * static_cast<double>(t.m * t.n) * 8 / r.bandwidth;
      best = std::min(best, waves * (work / (rate * t.share) + kTileEnds) + partial);
    }
  }
  return std::max(best, w.bytes() / r.bandwidth);
}

// Blocks of 128 x 128 scores: those on the diagonal and at the window's edge are computed whole, and each row of blocks pays for one
// more to start and end. A mask gives no reason to leave a block out.
double attention_seconds(const Work& w, const GpuRates& r, Dtype compute) {
  constexpr double kBlock = 128;
  const double T = static_cast<double>(w.length), rows = std::ceil(T / kBlock), window = std::min(T, static_cast<double>(w.window));
  double blocks = 0;
  if (w.masked || w.attention == Attention::math) {
    blocks = rows * (rows + 1);
  } else {
    const double reach = std::ceil(window / kBlock) + (window < T ? 1 : 0);
    for (double i = 0; i < rows; ++i) blocks += std::min(i + 1, reach) + 1;
  }
  const double flops = blocks * kBlock * kBlock * static_cast<double>(w.heads) * static_cast<double>(w.head_dim) * (w.backward ? 10 : 4);
  const double scores = w.attention == Attention::math ? 12.0 * T * T * static_cast<double>(w.heads) : 0;  // bytes: written, softmaxed, read
  const double arithmetic = flops / attention_rate(r, w.attention, w.backward, compute);
  // one block of queries of one head occupies one SM
  const double units = rows * static_cast<double>(w.heads), waves = std::ceil(units / r.sms) * r.sms / units;
  return std::max(arithmetic * std::min(waves, 2.0), (w.bytes() + scores) / r.bandwidth);
}

double least_seconds(const Work& w, const GpuRates& r) {
  if (w.k == 0 && w.length == 0) return w.bytes() / r.full_bandwidth;
  const double peak = w.operands == Dtype::fp32 ? std::max(r.fp32_gemm, r.bf16_peak / 2) : std::max(r.bf16_peak, r.bf16_gemm) * (size_of(w.operands) == 1 ? 2 : 1);
  return peak > 0 ? w.flops() / peak : 0;
}

double seconds_of(const Work& w, const GpuRates& r, Dtype compute) {
  const double gaps = static_cast<double>(w.launches) * kKernelGap;
  if (w.k > 0) return product_seconds(w, r) + gaps;
  if (w.length > 0) return attention_seconds(w, r, compute) + gaps;
  return w.bytes() / (w.reduces ? r.reducing_bandwidth : r.bandwidth) + gaps;
}

// Blocks repeat: equal products are timed once.
class Times {
 public:
  Times(const GpuRates& rates, Dtype compute) : r_(rates), compute_(compute) {}
  double of(const Work& w) {
    if (w.k == 0) return seconds_of(w, r_, compute_);
    for (const auto& [known, seconds] : known_) {
      if (known.m == w.m && known.n == w.n && known.k == w.k && known.count == w.count && known.operands == w.operands && known.launches == w.launches && known.bytes() == w.bytes()) return seconds;
    }
    known_.emplace_back(w, seconds_of(w, r_, compute_));
    return known_.back().second;
  }

 private:
  const GpuRates& r_;
  Dtype compute_;
  std::vector<std::pair<Work, double>> known_;
};

// Where the host and the GPU are. The host goes ahead as far as it can; a kernel starts when the one before it is done and its launch has come.
struct Clocks { double host = 0, gpu = 0, network = 0, used = 0; };  // used: when what was gathered last began to be used

// Adds one pass over some work, of which the step has `times`.
void run(const Work& w, const GpuRates& r, Times& seconds, double launch, double times, StepTime& out, Clocks& at) {
  const double first = at.host + static_cast<double>(w.calls) * kEagerCall + static_cast<double>(w.graphs) * kGraphCall + static_cast<double>(w.guards) * kGuard + launch;
  const double t = seconds.of(w), end = std::max(std::max(at.gpu, first) + t, first + static_cast<double>(w.launches - 1) * launch);
  at.host = first + static_cast<double>(w.launches - 1) * launch;
  out.waiting += (end - at.gpu - t) * times;
  at.gpu = end;
  out.by_kind[static_cast<std::size_t>(w.kind)] += t * times;
  out.roofline += least_seconds(w, r) * times;
  out.flops += w.flops() * times;
}

void run(const std::vector<Work>& list, const GpuRates& r, Times& seconds, double launch, double times, StepTime& out, Clocks& at) {
  if (times <= 0) return;
  for (const Work& w : list) run(w, r, seconds, launch, times, out, at);
}

// The host makes a batch; whatever comes next waits for it.
void load(double seconds, double times, StepTime& out, Clocks& at) {
  if (times <= 0) return;
  at.host += seconds;
  if (at.host <= at.gpu) return;
  out.loading += (at.host - at.gpu) * times;
  at.gpu = at.host;
}

double compute_of(const OptimizerUnit& unit, Times& seconds) {
  double t = 0;
  for (const Work& w : unit.work) t += seconds.of(w);
  return t;
}

// One stream of collectives beside one of arithmetic: all reductions of a phase first, gathers as their units are done.
double overlapped(const std::vector<OptimizerUnit>& units, int phase, const GpuRates& r, double world, Times& seconds) {
  const auto wire = [&](double bytes, double factor) { return bytes > 0 ? bytes * factor * (world - 1) / world / r.link + kCollective : 0; };
  double network = 0, arithmetic = 0;
  std::vector<double> reduced;
  for (const OptimizerUnit& u : units) {
    if (u.phase != phase) continue;
    network += wire(u.reduce_bytes, u.all_reduce ? 2 : 1);
    reduced.push_back(network);
  }
  std::size_t next = 0;
  for (const OptimizerUnit& u : units) {
    if (u.phase != phase) continue;
    arithmetic = std::max(arithmetic, reduced[next++]) + compute_of(u, seconds);
    network = std::max(network, arithmetic) + wire(u.gather_bytes, 1);
  }
  return std::max(network, arithmetic);
}

double wire_seconds(const Work& w, const GpuRates& r, double world) { return w.bytes() * (world - 1) / world / r.link + kCollective; }

// What the eager engine told, along three clocks: the host's, the GPU's and its links'.
class EagerStep {
 public:
  EagerStep(const GpuRates& rates, Dtype compute, double world, StepTime& out) : r_(rates), seconds_(r_, compute), world_(world), out_(out) {
    r_.fp32_gemm = r_.fp32_cores;
  }

  // One pass over a list, of which the step has `times`, from an idle GPU to an idle GPU. sends: with its collectives.
  void run(const std::vector<Work>& list, double times, bool sends = true) {
    if (times <= 0) return;
    Clocks at;
    for (const Work& w : list) {
      if (w.kind == WorkKind::communication) {
        if (sends && world_ > 1) send(w, at, times);
      } else {
        dryfit::run(w, r_, seconds_, kEagerLaunch, times, out_, at);
      }
    }
    if (at.network > at.gpu) expose(at.network - at.gpu, times);
  }

 private:
  // Gathered ahead: while the unit before it is computed. Reduced behind: while the pass goes on.
  void send(const Work& w, Clocks& at, double times) {
    at.host += kEagerLaunch;
    const double ready = w.beside == Work::Beside::earlier ? at.used : at.gpu;
    at.network = std::max({at.network, ready, at.host}) + wire_seconds(w, r_, world_);
    if (w.beside == Work::Beside::later) return;
    if (at.network > at.gpu) {
      expose(at.network - at.gpu, times);
      at.gpu = at.network;
    }
    at.used = at.gpu;
  }

  void expose(double seconds, double times) { out_.by_kind[static_cast<std::size_t>(WorkKind::communication)] += seconds * times; }

  GpuRates r_;
  Times seconds_;
  double world_;
  StepTime& out_;
};

bool sends(const std::vector<Work>& list) {
  return std::ranges::any_of(list, [](const Work& w) { return w.kind == WorkKind::communication; });
}

StepTime time_eager_step(const StepWork& work, const GpuRates& rates, double world, double micro, Dtype compute) {
  StepTime out;
  EagerStep step(rates, compute, world, out);
  const auto& lists = work.laid_out;
  step.run(lists.front(), lists.size() == 1 ? micro : 1);
  if (lists.size() == 2) step.run(lists[1], micro - 2, sends(lists[0]));  // those between add as the last does, and send as the first
  if (lists.size() == 3) step.run(lists[1], micro - 2);
  if (lists.size() > 1) step.run(lists.back(), 1);
  step.run(work.before_step, 1);
  out.seconds = out.waiting;
  for (double t : out.by_kind) out.seconds += t;
  return out;
}

}  // namespace

double kernel_seconds(const Work& work, const GpuRates& rates) { return seconds_of(work, rates, work.operands); }

StepTime time_step(const StepWork& work, const GpuRates& rates, std::int64_t world, std::int64_t accumulation, Dtype compute, bool compiled, double loader) {
  if (!work.laid_out.empty()) return time_eager_step(work, rates, static_cast<double>(world), static_cast<double>(accumulation), compute);
  StepTime out;
  const double launch = compiled ? kLaunch : kEagerLaunch;
  const auto micro = static_cast<double>(accumulation);
  Times seconds(rates, compute);
  Clocks at;  // nanochat looks at the loss at the end of the step
  run(work.micro_step, rates, seconds, launch, 1, out, at);
  load(loader, 1, out, at);
  run(work.micro_step, rates, seconds, launch, micro - 1, out, at);
  load(loader, micro - 1, out, at);
  run(work.accumulate, rates, seconds, kEagerLaunch, micro - 1, out, at);
  run(work.before_step, rates, seconds, kEagerLaunch, 1, out, at);
  for (const OptimizerUnit& u : work.optimizer) run(u.work, rates, seconds, launch, 1, out, at);
  if (world > 1) {
    double together = 0, alone = 0;
    for (const OptimizerUnit& u : work.optimizer) alone += compute_of(u, seconds);
    for (int phase = 0; phase < 2; ++phase) together += overlapped(work.optimizer, phase, rates, static_cast<double>(world), seconds);
    out.by_kind[static_cast<std::size_t>(WorkKind::communication)] += std::max(0.0, together - alone);
  }
  out.seconds = out.waiting + out.loading;
  for (double t : out.by_kind) out.seconds += t;
  return out;
}

}  // namespace dryfit

// Why memory ran out, from the numbers of the message first, from the moment second, from the prediction where there is one. The rule for
// each cause is a counterfactual: would the request have gone through without it? docs/doctor.md tells the rules in words.
#include <algorithm>

#include "base/text.hpp"
#include "doctor/diagnosis.hpp"
#include "doctor/words.hpp"
#include "memory/outside.hpp"

namespace dryfit {

namespace {

Bytes value(const std::optional<Amount>& amount) { return amount ? amount->bytes : Bytes(0); }
Bytes share(Bytes b, double fraction) { return Bytes(static_cast<std::int64_t>(static_cast<double>(b.count) * fraction)); }

// The process that failed, among those that the driver listed: in a container its own number is another one there.
const Tenant* own_process(const Oom& oom) {
  if (oom.this_process || oom.processes.empty() || !oom.reserved) return nullptr;
  const Tenant* own = nullptr;
  for (const Tenant& t : oom.processes) {
    if (t.memory.bytes + t.memory.slack + oom.reserved->slack >= oom.reserved->bytes && (own == nullptr || t.memory.bytes < own->memory.bytes)) own = &t;
  }
  return own;
}

struct Parts {
  Bytes total, free, allocated, idle, reserved, requested;
  std::optional<Bytes> own_outside;   // of this process, beyond its pool
  Bytes tenants;                      // others, as listed
  Bytes rest;                         // neither free nor the pool's nor listed
};

Parts parts_of(const Oom& oom) {
  Parts p{value(oom.total), value(oom.free), value(oom.allocated), value(oom.idle), value(oom.reserved), value(oom.requested), std::nullopt, Bytes(0), Bytes(0)};
  const Tenant* own = own_process(oom);
  if (oom.this_process && oom.reserved) p.own_outside = std::max(Bytes(0), oom.this_process->bytes - p.reserved);
  else if (own != nullptr) p.own_outside = std::max(Bytes(0), own->memory.bytes - p.reserved);
  for (const Tenant& t : oom.processes) {
    if (&t != own) p.tenants += t.memory.bytes;
  }
  p.rest = std::max(Bytes(0), p.total - p.free - p.reserved - p.own_outside.value_or(Bytes(0)) - p.tenants);
  return p;
}

class Judge {
 public:
  explicit Judge(const CauseQuery& query) : q_(query), oom_(query.event.oom), p_(parts_of(query.event.oom)) {}

  CauseFinding judge() {
    if (!by_wording()) {
      if (!by_numbers()) by_moment();
      clear_suspects();
    }
    return std::move(out_);
  }

 private:
  void set(Cause cause, Confidence confidence, std::string summary) {
    out_.cause = cause;
    out_.confidence = confidence;
    out_.summary = std::move(summary);
  }
  void evidence(std::string text) { out_.evidence.push_back(std::move(text)); }
  void also(std::string text) { out_.also.push_back(std::move(text)); }

  // Messages that say by themselves what is the matter.
  bool by_wording() {
    switch (oom_.wording) {
      case Wording::exabyte:
        set(Cause::size_bug, Confidence::certain, "a tensor with an impossible size was asked for: an index or shape has gone wrong, memory is not the matter");
        return true;
      case Wording::shared_memory:
        set(Cause::kernel_limit, Confidence::certain,
            oom_.requested && oom_.allowed ? said("one Triton kernel wants ", oom_.requested->bytes.count, " bytes of on-chip shared memory, this GPU gives ", oom_.allowed->bytes.count, ": the card's memory is not the matter")
                                           : "one Triton kernel wants more on-chip shared memory than this GPU has: the card's memory is not the matter");
        return true;
      case Wording::host_allocator:
      case Wording::host_killed:
      case Wording::pinned: host(); return true;
      case Wording::runtime:
      case Wording::cublas:
      case Wording::cudnn:
      case Wording::nccl: library(); return true;
      case Wording::allocator_warning:
        set(Cause::none, Confidence::likely, "no failure yet: the first attempt failed, PyTorch flushed its cache and tried again; the run is at the edge of the card");
        return true;
      default: return false;
    }
  }

  void host() {
    if (oom_.detail == "shm") set(Cause::host_memory, Confidence::certain, "the data loader's workers ran out of shared memory (/dev/shm): the host's, not the GPU's");
    else if (oom_.wording == Wording::pinned) set(Cause::host_memory, Confidence::certain, "page-locked host memory could not be had: the host's memory, not the GPU's");
    else if (oom_.wording == Wording::host_allocator) set(Cause::host_memory, Confidence::certain, "an allocation in the host's memory failed" + (oom_.requested ? ": " + exact_text(oom_.requested->bytes) + " were asked for" : std::string()));
    else if (oom_.detail == "cgroup") set(Cause::host_memory, Confidence::certain, "the container or job reached its limit of host memory and was killed");
    else set(Cause::host_memory, Confidence::likely, "the process was killed from outside (signal 9): most often the host ran out of memory; the kernel's log says so (dmesg)");
    if (oom_.allocated) evidence("the killed process held " + exact_text(oom_.allocated->bytes) + " of host memory");
  }

  void library() {
    const std::string who = oom_.detail.empty() ? "a call to the driver" : oom_.detail;
    if (q_.phase == Phase::startup && q_.part == Part::load && q_.run.steps_done() == 0) {
      set(Cause::other_process, Confidence::possible, who + " found no memory before the model was there: another process holds the card");
      return;
    }
    const bool sure = oom_.wording == Wording::nccl || q_.event.quote.find("ALLOC_FAILED") != std::string::npos;
    set(Cause::outside_pool, sure ? Confidence::certain : Confidence::likely, who + " found no memory beside PyTorch's pool" + (oom_.requested ? ": it asked for " + exact_text(oom_.requested->bytes) : std::string()));
    if (!sure) evidence("the same error also comes from other failures on the GPU: see whether nvidia-smi shows a full card");
    also("PyTorch's pool keeps what it once took, so little is left for libraries: a smaller device batch leaves more");
  }

  bool growing() {
    for (const MemorySeries& s : q_.run.memory) {
      if (const auto grown = growth_of(s)) {
        set(Cause::leak, Confidence::likely, said("memory grew by ", *grown, " over the run and never came back ('", s.label, "', ", s.used.count(), " readings)"));
        evidence("the largest reading: " + exact_text(Bytes(static_cast<std::int64_t>(s.used.largest()))));
        return true;
      }
    }
    return false;
  }

  // Comparisons of sizes that the message holds.
  bool by_numbers() {
    if (oom_.total && oom_.backend == Backend::cuda && p_.reserved > p_.total + share(p_.total, 0.01)) {
      set(Cause::windows_spill, Confidence::certain, said("PyTorch holds ", p_.reserved, " on a card of ", p_.total, ": Windows lends system memory, which is many times slower, and that ran out too"));
      evidence("only the Windows driver lets a process hold more than the card has");
      return true;
    }
    if (oom_.wording == Wording::mps) return metal();
    if (oom_.allowed && oom_.requested && (p_.reserved + p_.requested + mib(2) > oom_.allowed->bytes || p_.free >= p_.requested)) {
      set(Cause::limit, Confidence::certain, said("a limit of ", oom_.allowed->bytes, " is set for this process, on a card of ", p_.total, ": ", p_.reserved, " held + ", p_.requested, " asked for"));
      evidence("set_per_process_memory_fraction, or per_process_memory_fraction in the allocator's settings");
      return true;
    }
    if (!oom_.requested) return false;
    if (oom_.total && p_.requested > p_.total) {
      set(Cause::too_big, Confidence::certain, said("this one tensor of ", p_.requested, " is larger than the card's ", p_.total));
      return true;
    }
    if (!oom_.total || !oom_.free) return false;
    const bool plenty = p_.free - p_.requested >= share(p_.total, 0.02) || p_.tenants > Bytes(0);
    return p_.free >= p_.requested && plenty ? refused() : contributors();
  }

  bool metal() {
    set(Cause::too_big, oom_.allowed ? Confidence::certain : Confidence::likely,
        oom_.allowed ? said(p_.allocated, " of tensors + ", value(oom_.other_allocations), " of other Metal buffers + ", p_.requested, " asked for pass the limit of ", oom_.allowed->bytes)
                     : "Metal cannot make a buffer of this size");
    if (oom_.allowed) evidence("the limit is PYTORCH_MPS_HIGH_WATERMARK_RATIO (1.7) times what macOS recommends");
    return true;
  }

  // The driver refused although it had more than was asked for.
  bool refused() {
    if (p_.tenants > Bytes(0)) {
      set(Cause::other_process, Confidence::possible, said(p_.free, " are free now, yet ", p_.requested, " could not be had: another process let go of memory in between"));
      if (p_.own_outside && *p_.own_outside > gib(4)) also(said(*p_.own_outside, " of this process lie outside PyTorch's pool: communicators, graphs or other libraries"));
      return true;
    }
    std::string why = "a limit that the message does not name: a memory fraction, the host's commit limit (Windows: page file), or memory shared with the host";
    if (oom_.backend == Backend::xpu && p_.requested > gib(4)) why = "the driver does not give a single allocation over 4 GiB";
    if (oom_.backend == Backend::hip) why = "a limit of the driver or of memory shared with the host (integrated GPUs: the BIOS' carve-out)";
    set(Cause::limit, Confidence::likely, said("the card had ", p_.free, " free and was asked for ", p_.requested, ": ", why));
    return true;
  }

  Bytes usual_outside() const {
    const Machine* m = q_.machine ? &*q_.machine : nullptr;
    const Bytes now = outside_memory(m == nullptr ? 0 : m->gpu.compute_major, m == nullptr ? 0 : m->gpu.compute_minor, q_.world_size).high;
    const bool eager = oom_.torch == "1.3 or older" || oom_.torch == "1.4 to 1.9" || oom_.torch == "1.10 to 2.0";  // every kernel was loaded at once
    return eager ? std::max(now, mib(1126)) : now;
  }

  // Which of the holders, if it were gone, would have let the request through.
  bool contributors() {
    const Bytes shortage = std::max(mib(2), p_.requested - p_.free);  // the driver gives whole pages of 2 MiB
    const Bytes usual = usual_outside();
    out_.idle_would_do = p_.idle >= shortage && p_.idle >= share(p_.reserved, 0.02);
    const bool named = !oom_.requested || !is_segment_size(*oom_.requested, {});  // of a request that took a whole segment only that it is small is known
    const bool pieces = out_.idle_would_do && ((named && p_.idle >= p_.requested * 4) || p_.idle >= share(p_.reserved, 0.1));
    const bool crumbs = p_.requested < share(p_.total, 0.01);  // a small request only says that the card is full: look for large holders
    const bool tenants = p_.tenants >= shortage && p_.tenants >= share(p_.total, crumbs ? 0.1 : 0.04);
    const Bytes library = p_.own_outside ? std::max(Bytes(0), *p_.own_outside - usual) : Bytes(0);
    const bool libraries = library >= shortage && library >= std::max(gib(1), share(p_.total, 0.05));
    const Bytes hidden = p_.own_outside ? p_.rest : std::max(Bytes(0), p_.rest - usual);
    const bool strangers = hidden >= shortage && hidden >= share(p_.total, crumbs ? 0.2 : 0.08);
    const bool ran = q_.event.steps_done > 1;  // what ran fits, whatever the prediction says
    if (!ran && q_.prediction && q_.prediction->verdict == Verdict::wont_fit && q_.prediction->process > p_.total) {
      set(Cause::too_big, Confidence::certain, said("the run needs ", q_.prediction->process, " and an empty card gives ", p_.total));
    } else if (tenants && p_.tenants >= p_.idle) {
      set(Cause::other_process, p_.tenants >= share(p_.total, 0.1) ? Confidence::certain : Confidence::likely, said("other processes hold ", p_.tenants, " of the card; ", shortage, " more were missing"));
    } else if (pieces) {
      set(Cause::fragmentation, Confidence::likely, said(p_.idle, " were reserved and unused, ", shortage, " were missing: enough memory, in pieces too small"));
    } else if (libraries) {
      set(Cause::outside_pool, Confidence::likely, said(*p_.own_outside, " of this process lie outside PyTorch's pool: communicators, CUDA graphs or other libraries"));
    } else if (strangers && q_.run.steps_done() < 3) {
      set(Cause::other_process, Confidence::possible, said(p_.rest, " of the card are held by nobody the message names: most likely another process"));
    }
    if (tenants && out_.cause != Cause::other_process) also(said("other processes hold ", p_.tenants));
    if (libraries && out_.cause != Cause::outside_pool) also(said(*p_.own_outside, " of this process lie outside PyTorch's pool, ", library, " more than a CUDA context and its kernels take"));
    if (strangers && out_.cause != Cause::other_process) also(said(p_.rest, " are held by nobody the message names: another process, or a library"));
    if (out_.idle_would_do && out_.cause != Cause::fragmentation) also(said(p_.idle, " lie idle in pieces, ", shortage, " were missing: expandable segments might have let this one through"));
    return out_.cause != Cause::none;
  }

  // The numbers only say that the card is full: when it became full tells why.
  void by_moment() {
    const std::int64_t done = q_.run.steps_done();
    if (q_.phase == Phase::evaluation || q_.phase == Phase::sampling) {
      set(Cause::evaluation, Confidence::certain, std::string(q_.phase == Phase::sampling ? "sampling" : "evaluation") + " needs more than the training steps" + (done > 0 ? ", which had gone through " + std::to_string(done) + " times" : ""));
      return;
    }
    const bool ran = q_.event.steps_done > 0;
    if (!ran && q_.prediction && q_.prediction->verdict == Verdict::wont_fit) {
      set(Cause::too_big, Confidence::certain, said("the run needs ", q_.prediction->process, ", the card gives ", q_.prediction->usable));
      return;
    }
    if (q_.part == Part::optimizer && q_.event.steps_done == 0) {
      const bool first = q_.phase == Phase::first_step;  // else the text does not tell which step it was
      set(Cause::optimizer_state, first ? Confidence::certain : Confidence::likely, "the first optimizer step makes its state: forward and backward had fitted without it");
      return;
    }
    if (q_.phase == Phase::second_step) {
      set(Cause::optimizer_state, Confidence::likely, "the first step went through: the second is the first with the optimizer's state in memory");
      return;
    }
    if (growing()) return;
    if (q_.event.steps_done >= 8) {
      set(Cause::leak, Confidence::possible, said(q_.event.steps_done, " steps had gone through: memory grew since, or this batch was longer than those before"));
      if (q_.run.nanochat) evidence("nanochat's batches are all alike, so a longer one is not the reason");
      return;
    }
    full();
  }

  void full() {
    const Confidence confidence = oom_.total && oom_.allocated ? Confidence::certain : Confidence::likely;
    if (oom_.total && oom_.free && p_.requested > share(p_.total, 0.3)) {
      set(Cause::too_big, confidence, said("one tensor of ", p_.requested, " is asked for, on a card of ", p_.total, " with ", p_.free, " free"));
    } else if (oom_.total && oom_.allocated) {
      set(Cause::too_big, confidence, said("tensors of this process fill the card: ", p_.allocated, " of ", p_.total, ", ", p_.requested, " more were asked for"));
    } else {
      set(Cause::too_big, confidence, oom_.requested ? said(p_.requested, " could not be had") : "the GPU's memory is full; the message holds no numbers");
    }
    if (oom_.wording == Wording::xla) evidence("JAX takes three quarters of the card at its start: what others hold counts double");
  }

  void clear_suspects() {
    if (oom_.idle && out_.cause != Cause::fragmentation && p_.reserved > Bytes(0) && p_.idle < share(p_.reserved, 0.02)) out_.not_this.push_back(said("fragmentation: only ", p_.idle, " are reserved and unused"));
    if (oom_.this_process && out_.cause != Cause::other_process && p_.total - p_.free - oom_.this_process->bytes < share(p_.total, 0.02)) out_.not_this.push_back("another process: this one holds all that is taken");
  }

  const CauseQuery& q_;
  const Oom& oom_;
  Parts p_;
  CauseFinding out_;
};

}  // namespace

std::string_view name_of(Cause cause) {
  static constexpr std::string_view kNames[] = {"none", "too_big", "fragmentation", "other_process", "leak", "optimizer_state", "evaluation", "host_memory", "limit", "windows_spill", "outside_pool", "kernel_limit", "size_bug"};
  return kNames[static_cast<std::size_t>(cause)];
}

std::string_view name_of(Confidence confidence) {
  static constexpr std::string_view kNames[] = {"certain", "likely", "possible"};
  return kNames[static_cast<std::size_t>(confidence)];
}

std::vector<Holder> holders_of(const Oom& oom) {
  std::vector<Holder> out;
  const Parts p = parts_of(oom);
  if (oom.allocated) out.push_back({"PyTorch", p.allocated, oom.private_pools ? "tensors; " + exact_text(oom.private_pools->bytes) + " of them in CUDA graphs' pools" : "tensors"});
  if (oom.idle) out.push_back({"idle", p.idle, "reserved by PyTorch, in no tensor"});
  if (oom.other_allocations) out.push_back({"other buffers", oom.other_allocations->bytes, "of this process, outside PyTorch's pool"});
  if (!oom.total || oom.wording == Wording::xla) return out;
  const Tenant* own = own_process(oom);
  if (p.own_outside) out.push_back({"outside", *p.own_outside, "of this process: CUDA context, kernels, libraries"});
  for (const Tenant& t : oom.processes) {
    if (&t != own) out.push_back({"process " + std::to_string(t.pid), t.memory.bytes, "somebody else"});
  }
  if (oom.free && oom.allocated && p.reserved <= p.total) {
    out.push_back(p.own_outside ? Holder{"not named", p.rest, "driver, and processes it does not show"} : Holder{"the rest", p.rest, "CUDA context, libraries, other processes"});
  }
  if (oom.free) out.push_back({"free", p.free, ""});
  return out;
}

CauseFinding find_cause(const CauseQuery& query) { return Judge(query).judge(); }

std::optional<Bytes> growth_of(const MemorySeries& series) {
  const auto& points = series.used.points();
  if (points.size() < 9) return std::nullopt;
  const std::size_t third = points.size() / 3;
  const auto lowest = [&](std::size_t from, std::size_t to) {  // what stays between steps, not their peaks
    double low = points[from].y;
    for (std::size_t i = from; i < to; ++i) low = std::min(low, points[i].y);
    return low;
  };
  const double first = lowest(1, third), middle = lowest(third, 2 * third), last = lowest(2 * third, points.size());
  if (!(first < middle && middle < last) || last - first < 0.03 * first || last - middle < 0.2 * (middle - first)) return std::nullopt;
  return Bytes(static_cast<std::int64_t>(last - first));
}

}  // namespace dryfit

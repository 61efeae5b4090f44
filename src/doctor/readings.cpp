// See readings.hpp.
#include "doctor/readings.hpp"

#include <algorithm>

namespace dryfit {

namespace {

constexpr std::size_t kMostGpus = 4096, kMostHosts = 4096;
constexpr double kOften = 0.1;  // share of time in which a reason must stand

std::optional<double> real(const std::optional<int>& n) { return n ? std::optional<double>(*n) : std::nullopt; }

}  // namespace

void Readings::Mean::add(const std::optional<double>& value, double seconds) {
  if (!value) return;
  if (!only) only = value;
  sum += *value * seconds;
  weight += seconds;
}

void Readings::add(const MachineSample& sample) {
  const double step = samples_ == 0 ? 0 : std::max(0.0, sample.seconds - last_);
  if (samples_++ == 0) first_ = sample.seconds;
  last_ = std::max(last_, sample.seconds);
  const auto own = [&](const GpuProcess& p) { return std::ranges::find(sample.processes, p.pid, &ProcessSample::pid) != sample.processes.end(); };
  if (gpus_.size() < sample.gpus.size()) gpus_.resize(std::min(sample.gpus.size(), kMostGpus));
  for (std::size_t i = 0; i < std::min(sample.gpus.size(), gpus_.size()); ++i) {
    Seen& s = gpus_[i];
    const GpuSample& g = s.now = sample.gpus[i];
    if (g.lost) continue;
    s.utilization.add(g.utilization, step);
    s.power.add(g.power_watts, step);
    if (!g.utilization || *g.utilization > 0) s.clock.add(real(g.sm_clock_mhz), step);  // without work clocks are low, and that means nothing
    for (std::size_t bit = 0; g.throttle && bit < kReasons; ++bit) s.throttle[bit].add((*g.throttle >> bit & 1) != 0 ? 1.0 : 0.0, step);
    s.pcie_generation = std::max(s.pcie_generation, g.pcie_generation.value_or(0));
    s.pcie_width = std::max(s.pcie_width, g.pcie_width.value_or(0));
    const bool mine = g.processes && std::ranges::any_of(*g.processes, own);
    s.in_job = s.in_job || mine;
    if (!g.used || (s.used && *g.used <= *s.used)) continue;
    s.used = g.used;
    if (!mine) continue;
    Bytes others;
    s.other_processes = 0;
    for (const GpuProcess& p : *g.processes) {
      if (own(p)) continue;
      others += p.used.value_or(Bytes(0));
      ++s.other_processes;
    }
    s.others = others;
  }
  for (const ProcessSample& p : sample.processes) {
    auto host = std::ranges::find(hosts_, p.pid, &Host::pid);
    if (host == hosts_.end() && hosts_.size() < kMostHosts) host = hosts_.insert(hosts_.end(), {p.pid, {}});
    if (host != hosts_.end()) host->cores.add(p.cpu, step);
  }
}

std::vector<Readings::Gpu> Readings::gpus() const {
  std::vector<Gpu> out;
  for (const Seen& s : gpus_) {
    const GpuSample& g = s.now;
    Gpu& to = out.emplace_back(Gpu{g.index, g.name, g.uuid, g.lost, g.mig, s.in_job, {}});
    Observation& o = to.seen;
    o.used = s.used, o.total = g.total, o.others = s.others, o.other_processes = s.other_processes;
    o.utilization = s.utilization.value();
    o.power_watts = s.power.value(), o.power_limit_watts = g.power_limit_watts;
    o.clock_mhz = s.clock.value(), o.max_clock_mhz = real(g.sm_clock_max_mhz);
    for (std::size_t bit = 0; bit < kReasons; ++bit) {
      const auto share = s.throttle[bit].value();
      if (share) o.throttle = o.throttle.value_or(0) | (*share >= kOften ? std::uint64_t{1} << bit : 0);
    }
    if (s.pcie_generation > 0) o.pcie_generation = s.pcie_generation;
    if (s.pcie_width > 0) o.pcie_width = s.pcie_width;
    o.pcie_generation_max = g.pcie_generation_max, o.pcie_width_max = g.pcie_width_max;
    if (!s.in_job) continue;
    for (const Host& h : hosts_) {
      const auto cores = h.cores.value();
      if (cores && (!o.host_cores || *cores > *o.host_cores)) o.host_cores = cores, o.host_pid = h.pid;
    }
  }
  return out;
}

}  // namespace dryfit

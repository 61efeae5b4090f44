// Reads what nvidia-smi printed: the CSV of --query-gpu, the plain table, or -L; and turns readings into a machine.
// Any bytes may come in; nothing is trusted but what parses.
#include <algorithm>
#include <map>

#include "base/text.hpp"
#include "machine/probe.hpp"

namespace dryfit {

namespace {

std::optional<Bytes> table_mebibytes(std::string_view text) {
  std::string_view body = trim(text);
  for (std::string_view unit : {"MiB", "MB"}) {
    if (body.ends_with(unit)) body = trim(body.substr(0, body.size() - unit.size()));
  }
  const auto n = parse_int(body, "");
  return n && *n >= 0 && *n < (std::int64_t{1} << 30) ? std::optional(mib(*n)) : std::nullopt;
}

// The columns of the query dryfit itself makes, in its order; a header line, when there is one, says otherwise.
const std::vector<std::string>& own_columns() {
  static const std::vector<std::string> columns = {"index", "name", "uuid", "pci.bus_id", "memory.total", "memory.reserved", "memory.used", "memory.free",
                                                   "compute_cap", "utilization.gpu", "mig.mode.current", "ecc.mode.current", "driver_version"};
  return columns;
}

void set_field(GpuReading& g, std::string_view column, std::string_view value) {
  const std::string key = to_lower(trim(column.substr(0, column.find('['))));
  const std::string_view v = trim(value);
  if (v.empty() || v.front() == '[' || v == "N/A" || v == "Not Supported") return;
  if (key == "index") g.index = static_cast<int>(parse_int(v, "").value_or(0));
  else if (key == "name" || key == "gpu_name") g.name = std::string(v);
  else if (key == "uuid" || key == "gpu_uuid") g.uuid = std::string(v);
  else if (key == "pci.bus_id") g.pci_bus_id = std::string(v);
  else if (key == "memory.total") g.total = table_mebibytes(v);
  else if (key == "memory.reserved") g.reserved = table_mebibytes(v);
  else if (key == "memory.used") g.used = table_mebibytes(v);
  else if (key == "memory.free") g.free = table_mebibytes(v);
  else if (key == "driver_version") g.driver_version = std::string(v);
  else if (key == "mig.mode.current") g.mig_parent = v == "Enabled";
  else if (key == "compute_cap") {
    if (const auto parts = split(v, '.'); parts.size() == 2) {
      g.compute_major = static_cast<int>(parse_int(parts[0], "").value_or(0));
      g.compute_minor = static_cast<int>(parse_int(parts[1], "").value_or(0));
    }
  }
}

bool looks_like_memory(std::string_view field) { return table_mebibytes(field).has_value(); }

// "name, memory.total [MiB]" and friends; without a header the columns are guessed from their number.
void read_csv(const std::vector<std::string_view>& lines, ProbeResult& out) {
  std::vector<std::string> columns;
  for (std::string_view line : lines) {
    const auto fields = split(line, ',');
    if (fields.size() < 2 || fields.size() > 64) continue;
    if (line.find("memory.total") != std::string_view::npos || line.find("name,") == 0) {
      columns.assign(fields.begin(), fields.end());
      continue;
    }
    std::vector<std::string> use = columns;
    if (use.empty()) {
      if (fields.size() == own_columns().size()) use = own_columns();
      else if (fields.size() == 2 && looks_like_memory(fields[1])) use = {"name", "memory.total"};
      else if (fields.size() == 5) use = {"index", "name", "memory.total", "memory.used", "driver_version"};
      else continue;
    }
    if (fields.size() != use.size()) continue;
    GpuReading g;
    g.index = static_cast<int>(out.gpus.size());
    for (std::size_t i = 0; i < fields.size(); ++i) set_field(g, use[i], fields[i]);
    if (!g.name.empty()) out.gpus.push_back(std::move(g));
  }
}

// "0    2   0   1": card, GPU instance, compute instance, MIG device: a row of the table of MIG devices.
std::optional<std::array<int, 4>> four_numbers(std::string_view cell) {
  std::array<int, 4> out{};
  std::size_t n = 0;
  for (std::string_view word : split(cell, ' ')) {
    if (word.empty()) continue;
    const auto value = parse_int(word, "");
    if (n == 4 || !value || *value < 0 || *value > 1024) return std::nullopt;
    out[n++] = static_cast<int>(*value);
  }
  return n == 4 ? std::optional(out) : std::nullopt;
}

// Compute instances of one GPU instance share its memory: the first stands for all.
void read_slice(std::string_view line, const std::array<int, 4>& ids, ProbeResult& out) {
  const auto at = line.find("MiB /");
  std::size_t start = at;
  while (start > 0 && is_digit(line[start - 1])) --start;
  GpuReading slice;
  for (GpuReading& g : out.gpus) {
    if (g.index != ids[0] || g.mig_slice) continue;
    g.mig_parent = true;
    slice.name = g.name;
  }
  slice.index = ids[0];
  slice.name += " MIG";
  slice.mig_slice = true;
  slice.used = table_mebibytes(line.substr(start, at - start));
  const std::string_view after = trim(line.substr(at + 5));
  slice.total = table_mebibytes(after.substr(0, after.find("MiB")));
  slice.reserved = Bytes(0);  // a slice's total is what is left after the driver's part
  slice.uuid = std::to_string(ids[0]) + "/" + std::to_string(ids[1]);
  const bool known = std::ranges::any_of(out.gpus, [&](const GpuReading& g) { return g.mig_slice && g.uuid == slice.uuid; });
  if (slice.total && !known) out.gpus.push_back(slice);
}

// "|   0  NVIDIA GeForce RTX 4090        Off |": the line after it has "1234MiB / 24564MiB".
void read_table(const std::vector<std::string_view>& lines, ProbeResult& out) {
  GpuReading current;
  bool open = false;
  for (std::string_view line : lines) {
    if (const auto at = line.find("Driver Version:"); at != std::string_view::npos) {
      const std::string_view rest = trim(line.substr(at + 15));
      current.driver_version = std::string(rest.substr(0, rest.find(' ')));
    }
    if (line.empty() || line.front() != '|') continue;
    const auto cells = split(line.substr(1), '|');
    const std::string_view first = trim(cells.front());
    const auto memory = line.find("MiB /");
    if (memory == std::string_view::npos) {
      const std::size_t gap = first.find(' ');
      const auto index = parse_int(first.substr(0, gap), "");
      if (gap == std::string_view::npos || !index || *index < 0 || *index > 1024) continue;
      std::string_view name = trim(first.substr(gap));
      name = trim(name.substr(0, name.find("  ")));
      for (std::string_view tail : {" Off", " On", " WDDM", " TCC", " N/A"}) {
        if (name.ends_with(tail)) name = trim(name.substr(0, name.size() - tail.size()));
      }
      if (name.empty() || name.front() < 'A') continue;
      current.index = static_cast<int>(*index);
      current.name = std::string(name);
      open = true;
      if (line.find("WDDM") != std::string_view::npos) out.windows_memory_model = true;
    } else if (const auto ids = four_numbers(first)) {
      read_slice(line, *ids, out);
    } else if (open) {
      std::size_t start = memory;
      while (start > 0 && is_digit(line[start - 1])) --start;
      current.used = table_mebibytes(line.substr(start, memory - start));
      const std::string_view after = trim(line.substr(memory + 5));
      current.total = table_mebibytes(after.substr(0, after.find("MiB")));
      current.mig_parent = line.find("Enabled") != std::string_view::npos;
      if (current.total) out.gpus.push_back(current);
      open = false;
    }
    // the third line of a card's row says whether MIG is on
    if (!open && memory == std::string_view::npos && !out.gpus.empty() && !cells.empty() && trim(cells[cells.size() > 1 ? cells.size() - 2 : 0]) == "Enabled") out.gpus.back().mig_parent = true;
  }
}

// "GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-...)", and below it "  MIG 3g.40gb     Device  0: (UUID: MIG-...)".
void read_list(const std::vector<std::string_view>& lines, ProbeResult& out) {
  GpuReading card;
  for (std::string_view line : lines) {
    const std::string_view text = trim(line);
    const auto uuid = text.find("(UUID:");
    if (uuid == std::string_view::npos) continue;
    if (text.starts_with("GPU ")) {
      const auto colon = text.find(": ");
      if (colon == std::string_view::npos || colon > uuid) continue;
      card = {};
      card.index = static_cast<int>(out.gpus.size());
      card.name = std::string(trim(text.substr(colon + 2, uuid - colon - 2)));
      if (!card.name.empty()) out.gpus.push_back(card);
    } else if (text.starts_with("MIG ") && !card.name.empty()) {
      const std::string_view profile = trim(text.substr(4, text.find(' ', 4) - 4));
      for (GpuReading& g : out.gpus) g.mig_parent = g.mig_parent || (g.name == card.name && !g.mig_slice);
      GpuReading slice = card;
      slice.name += " MIG " + std::string(profile);
      slice.mig_slice = true;
      slice.total = slice_memory(card.name, profile);
      out.gpus.push_back(slice);
    }
  }
}

// The table cuts long names ("NVIDIA GeForce RTX 208..."): the catalogue's name that begins so and is nearest in memory.
Result<GpuKind> find_cut_name(std::string_view name, std::optional<Bytes> total) {
  if (!name.ends_with("...")) return find_gpu(name, total);
  const std::string_view start = trim(name.substr(0, name.size() - 3));
  const GpuKind* best = nullptr;
  for (const GpuKind& g : gpu_catalogue()) {
    if (!g.name.starts_with(start) && !g.name.starts_with("NVIDIA " + std::string(start))) continue;
    const auto distance = [&](const GpuKind* k) { return std::abs((k->total - total.value_or(k->total)).count); };
    if (best == nullptr || distance(&g) < distance(best)) best = &g;
  }
  return best != nullptr ? Result<GpuKind>(*best) : find_gpu(name, total);
}

std::unexpected<Error> no_gpu(std::string message) {
  return fail("no_gpu", std::move(message), "name the GPU instead: --gpu \"RTX 4090\", or its memory: --memory 24GiB", "nvidia-smi");
}

}  // namespace

Result<ProbeResult> parse_nvidia_smi(std::string_view text) {
  ProbeResult out;
  out.source = MachineSource::nvidia_smi;
  std::vector<std::string_view> lines;
  for (std::string_view line : split(text.substr(0, std::min<std::size_t>(text.size(), 1 << 20)), '\n')) {
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    lines.push_back(line);
  }
  const bool table = text.find("MiB /") != std::string_view::npos;
  if (table) read_table(lines, out);
  else if (text.find("(UUID:") != std::string_view::npos) read_list(lines, out);
  else read_csv(lines, out);
  if (!out.gpus.empty()) return out;
  if (text.find("couldn't communicate") != std::string_view::npos || text.find("Driver not loaded") != std::string_view::npos) return no_gpu("nvidia-smi cannot reach the NVIDIA driver");
  if (text.find("version mismatch") != std::string_view::npos) return no_gpu("the NVIDIA driver and its library have different versions; a reboot mends that");
  if (text.find("No devices were found") != std::string_view::npos) return no_gpu("nvidia-smi found no GPU");
  return no_gpu("no GPU in what nvidia-smi printed");
}

Result<Machine> machine_from_probe(const ProbeResult& probe, const MachineFlags& flags) {
  std::vector<GpuReading> gpus;
  const bool slices = std::ranges::any_of(probe.gpus, &GpuReading::mig_slice);
  for (const GpuReading& g : probe.gpus) {
    if (slices ? g.mig_slice : true) gpus.push_back(g);
  }
  if (gpus.empty()) return no_gpu("no GPU was found");
  std::map<std::pair<std::string, std::int64_t>, std::vector<GpuReading>> kinds;
  for (const GpuReading& g : gpus) kinds[{g.name, g.total.value_or(Bytes(0)).count}].push_back(g);
  // of cards the kind there is most of; of MIG slices the largest
  const auto better = [&](const auto& a, const auto& b) {
    const std::size_t many_a = slices ? 1 : a.second.size(), many_b = slices ? 1 : b.second.size();
    return std::pair(many_a, a.first.second) < std::pair(many_b, b.first.second);
  };
  if (!slices && std::ranges::all_of(probe.gpus, &GpuReading::mig_parent)) {
    return fail("no_gpu", "MIG is on and its slices could not be read", "give the slice's memory: --gpu \"" + gpus.front().name.substr(0, 60) + "\" --memory 40GiB", "nvidia-smi");
  }
  const auto& set = std::ranges::max_element(kinds, better)->second;
  const GpuReading& first = set.front();

  Machine m;
  m.source = probe.source;
  m.gpus = slices ? 1 : static_cast<std::int64_t>(set.size());
  if (slices) m.notes.push_back("MIG: a process sees one slice, taken here: " + std::to_string(first.total.value_or(Bytes(0)).count >> 20) + " MiB");
  if (kinds.size() > 1 && !slices) m.notes.push_back(std::to_string(gpus.size()) + " GPUs of " + std::to_string(kinds.size()) + " kinds here: counting the " + std::to_string(set.size()) + " x " + first.name);
  if (flags.gpus) {
    if (*flags.gpus < 1 || *flags.gpus > 65536) return fail("bad_value", "--gpus " + std::to_string(*flags.gpus) + " is out of range", "use a number from 1 to 65536", "--gpus");
    if (*flags.gpus > m.gpus) m.notes.push_back("only " + std::to_string(m.gpus) + " such GPUs are here");
    m.gpus = *flags.gpus;
  }
  const auto known = slices ? find_cut_name(trim(first.name.substr(0, first.name.find(" MIG"))), std::nullopt) : find_cut_name(first.name, first.total);
  if (known) m.gpu = *known;
  if (!known || !first.name.ends_with("...")) m.gpu.name = first.name;
  m.gpu.note.clear();
  if (first.compute_major) m.gpu.compute_major = *first.compute_major, m.gpu.compute_minor = first.compute_minor.value_or(0);
  if (!first.total && (first.unified || m.gpu.unified)) {
    if (!probe.host_available) return fail("unknown_memory", first.name + " shares the host's memory and its size could not be read", "give it: --memory 100GiB", "--memory");
    m.gpu.unified = true;
    m.total = *probe.host_available;
    m.notes.push_back("unified memory: what the host has available now");
  } else if (first.total) {
    m.total = *first.total;
    // under Windows and WSL, CUDA shows the whole card, and the display driver keeps some 205 MiB of it
    const Bytes unread = probe.windows_memory_model ? mib(205) : known && std::abs((known->total - m.total).gib()) < 0.5 ? known->driver_reserve : default_driver_reserve(m.total);
    m.driver_reserve = first.reserved.value_or(unread);
    if (probe.windows_memory_model) m.notes.push_back("Windows memory model: beyond the card's memory CUDA spills into the host's and slows down instead of failing");
  } else if (known) {
    m.total = known->total;
    m.driver_reserve = known->driver_reserve;
    m.notes.push_back("memory not readable: taken from the catalogue");
  } else if (flags.memory) {
    m.total = *flags.memory;
  } else {
    return fail("unknown_memory", "the memory of '" + first.name + "' could not be read", "give it: --memory 24GiB", "--memory");
  }
  for (const GpuReading& g : set) {
    if (!g.used) continue;
    const Bytes others = g.reserved || probe.source != MachineSource::nvidia_smi ? *g.used : std::max(Bytes(0), *g.used);
    m.used_by_others = std::max(m.used_by_others, others);
  }
  if (m.used_by_others > Bytes(0)) m.notes.push_back(std::to_string(m.used_by_others.count >> 20) + " MiB in use by others now");
  m.user_reserve = flags.reserve.value_or(Bytes(0));
  return m;
}

}  // namespace dryfit

// What people give as --gpu: a name, a number of them, a line of nvidia-smi, a slice, a machine that is rented (data/instances.csv); and the machine that
// follows with --gpus, --memory and --reserve. Names alone are catalogue.cpp's.
#include <algorithm>

#include "base/embedded.hpp"
#include "base/text.hpp"
#include "machine/csv.hpp"
#include "machine/machine.hpp"

namespace dryfit {

namespace {

std::vector<Instance> read_instances(std::string_view csv) {
  std::vector<Instance> out;
  bool header = true;
  for (std::string_view line : split(csv, '\n')) {
    const auto f = header || line.empty() ? std::vector<std::string>() : csv_fields(line);
    header = false;
    if (f.size() < 5) continue;
    for (std::string_view name : split(f[0], '|')) out.push_back({std::string(name), f[1], f[2], parse_int(f[3], "").value_or(1), f[4]});
  }
  return out;
}

// "Standard_ND96isr_H100_v5" and "nd96isr h100 v5" are one, and "ml.p5.48xlarge" is "p5.48xlarge".
std::string instance_key(std::string_view name) {
  std::string out;
  for (char c : to_lower(trim(name))) {
    const bool between = c == ' ' || c == '-' || c == '_' || c == '.';
    if (!between) out += c;
    else if (!out.ends_with('-')) out += '-';
  }
  for (std::string_view before : {"ml-", "standard-"}) {
    if (out.starts_with(before)) out.erase(0, before.size());
  }
  return out;
}

}  // namespace

std::span<const Instance> instances() {
  static const std::vector<Instance> rows = read_instances(embedded_instances_csv);
  return rows;
}

const Instance* find_instance(std::string_view name) {
  const std::string key = instance_key(name.substr(0, 200));
  const auto found = std::ranges::find_if(instances(), [&](const Instance& i) { return instance_key(i.name) == key; });
  return found == instances().end() ? nullptr : &*found;
}

std::string instances_like(std::string_view name) {
  const std::string key = instance_key(name.substr(0, 200));
  const std::size_t end = key.rfind('-');
  if (end == std::string::npos || end < 2) return "";
  constexpr std::size_t kMost = 4;
  std::string out;
  std::size_t found = 0;
  for (const Instance& i : instances()) {
    if (!instance_key(i.name).starts_with(key.substr(0, end + 1)) || ++found > kMost) continue;
    out += (found == 1 ? "did you mean '" : " or '") + i.name + "'";
  }
  return found == 0 ? "" : out + (found > kMost ? " or another size?" : "?");
}

namespace {

// What people give as the name of a GPU, taken apart: its number, its memory, the profile of a MIG slice.
struct GivenName {
  std::string name, profile;
  std::optional<std::int64_t> count;
  std::optional<Bytes> memory;
};

GivenName taken_apart(std::string_view text) {
  GivenName out;
  text = trim(text);
  if (text.starts_with("GPU ") && text.find(": ") < 8) text = text.substr(text.find(": ") + 2);  // nvidia-smi -L
  text = trim(text.substr(0, text.find("(UUID")));
  if (const auto comma = text.rfind(','); comma != std::string_view::npos && (text.ends_with("MiB") || text.ends_with("GiB"))) {  // --query-gpu=name,memory.total
    if (const auto size = parse_size(text.substr(comma + 1), "--gpu")) out.memory = *size, text = trim(text.substr(0, comma));
  }
  for (std::string_view before : {"gpu:", "gpu_"}) {  // Slurm's --gres, Lambda's instances
    if (to_lower(text).starts_with(before)) text = text.substr(before.size());
  }
  const auto lower = to_lower(text);
  if (const auto mig = lower.find("mig "); mig != std::string::npos && (mig == 0 || lower[mig - 1] == ' ')) {
    out.profile = trim(std::string_view(lower).substr(mig + 4));
    text = trim(text.substr(0, mig));
  }
  const auto number = [](std::string_view digits) {
    digits = trim(digits);
    return !digits.empty() && digits.size() < 6 && std::ranges::all_of(digits, is_digit) ? std::optional(parse_int(digits, "").value_or(0)) : std::nullopt;
  };
  if (const auto colon = text.rfind(':'); colon != std::string_view::npos && number(text.substr(colon + 1))) {  // "A100-80GB:4"
    out.count = number(text.substr(colon + 1));
    out.name = trim(text.substr(0, colon));
    return out;
  }
  const auto cross = to_lower(text).find('x'), last = to_lower(text).rfind('x');  // "8xH100", "4090 x2"
  const auto before = cross == std::string::npos ? std::nullopt : number(text.substr(0, cross));
  const auto after = last == std::string::npos || last == 0 || (text[last - 1] != ' ' && !is_digit(text[last - 1])) ? std::nullopt : number(text.substr(last + 1));
  if (before && (!after || *before < *after)) {  // of "8x4090" the smaller one counts
    out.count = before;
    text = trim(text.substr(cross + 1));
  } else if (after) {
    out.count = after;
    text = trim(text.substr(0, last));
  }
  out.name = std::string(text);
  return out;
}

// How many GPUs are used of those that a name stands for, where that is another number.
std::string use_of(std::int64_t used, std::int64_t named) {
  if (used > named) return std::to_string(used) + " GPUs are used, more than the " + std::to_string(named) + " named";
  return "of " + std::to_string(named) + " GPUs " + std::to_string(used) + (used == 1 ? " is used" : " are used");
}

// The machine that is called so; else the GPU; else the name taken apart. Fills in what the name tells of number and memory, and what to say.
Result<GpuKind> find_given(MachineFlags& flags, std::vector<std::string>& notes) {
  const auto counted = [&](std::int64_t count) {
    if (!flags.gpus) flags.gpus = count;
    if (*flags.gpus != count) notes.push_back(use_of(*flags.gpus, count));
  };
  if (const Instance* machine = find_instance(*flags.gpu)) {
    notes.push_back(machine->name + " (" + machine->provider + ") has " + std::to_string(machine->gpus) + " x " + machine->gpu);
    counted(machine->gpus);
    return find_gpu(machine->gpu);
  }
  auto gpu = find_gpu(*flags.gpu, flags.memory);
  if (gpu) return gpu;
  const GivenName given = taken_apart(*flags.gpu);
  if (given.name == *flags.gpu || given.name.empty()) return gpu;
  auto inner = find_gpu(given.name, flags.memory ? flags.memory : given.memory);
  if (!inner) return inner;
  if (!given.profile.empty()) inner->note.clear();
  if (given.count) counted(*given.count);
  if (given.profile.empty()) {
    if (given.memory && !flags.memory) flags.memory = given.memory;
    return inner;
  }
  const auto slice = flags.memory ? flags.memory : slice_memory(inner->name, given.profile);
  if (!slice) return fail("unknown_memory", "the memory of a MIG slice " + given.profile.substr(0, 20) + " of " + inner->name + " is not known", "give it as nvidia-smi shows it: --gpu \"" + *flags.gpu + "\" --memory 40GiB", "--memory");
  inner->name += " MIG " + given.profile.substr(0, 20);
  flags.memory = slice;
  return inner;
}

}  // namespace

Result<Machine> machine_from_flags(const MachineFlags& given) {
  MachineFlags flags = given;
  Machine m;
  m.source = MachineSource::flag;
  if (flags.gpu) {
    auto gpu = find_given(flags, m.notes);
    if (!gpu) return std::unexpected(gpu.error());
    m.gpu = *gpu;
    m.total = gpu->total;
    m.driver_reserve = gpu->driver_reserve;
    if (!gpu->note.empty()) m.notes.insert(m.notes.begin(), gpu->note);
  } else if (flags.memory) {
    m.gpu.name = "GPU with " + gigabytes_text(*flags.memory);
    m.gpu.vendor = "unknown";
    m.gpu.compute_major = 8;
    m.notes.push_back("no GPU named: taken as compute capability 8.0");
  } else {
    return fail("missing_gpu", "no GPU given", "name one: --gpu \"RTX 4090\", or its memory: --memory 24GiB", "--gpu");
  }
  if (flags.memory) {
    if (*flags.memory < mib(256)) return fail("bad_value", "--memory is below 256 MiB", "give the card's memory, such as 24GiB", "--memory");
    if (!flags.gpu || std::abs((m.total - *flags.memory).gib()) > 0.5) {
      m.driver_reserve = flags.gpu ? m.driver_reserve : default_driver_reserve(*flags.memory);
      m.total = *flags.memory;
    }
  }
  if (flags.gpus && (*flags.gpus < 1 || *flags.gpus > 65536)) return fail("bad_value", "--gpus " + std::to_string(*flags.gpus) + " is out of range", "use a number from 1 to 65536", "--gpus");
  m.gpus = flags.gpus.value_or(1);
  m.user_reserve = flags.reserve.value_or(Bytes(0));
  if (m.usable() <= Bytes(0)) return fail("bad_value", "nothing of " + gigabytes_text(m.total) + " is left after what the driver keeps" + (flags.reserve ? " and --reserve" : ""), "give a larger --memory or a smaller --reserve", flags.reserve ? "--reserve" : "--memory");
  return m;
}

}  // namespace dryfit

// The GPU catalogue: reads the embedded data/gpus.csv, finds a GPU by what people and drivers call it.
#include <algorithm>
#include <array>

#include "base/embedded.hpp"
#include "base/text.hpp"
#include "machine/machine.hpp"

namespace dryfit {

namespace {

// Fields of one CSV line; quotes as RFC 4180, no line breaks inside fields.
std::vector<std::string> csv_fields(std::string_view line) {
  std::vector<std::string> out(1);
  bool quoted = false;
  for (std::size_t i = 0; i < line.size(); ++i) {
    const char c = line[i];
    if (quoted && c == '"' && i + 1 < line.size() && line[i + 1] == '"') out.back() += c, ++i;
    else if (c == '"') quoted = !quoted;
    else if (c == ',' && !quoted) out.emplace_back();
    else out.back() += c;
  }
  return out;
}

std::optional<double> rate(const std::string& text) {
  const auto value = parse_real(text, "data/gpus.csv");
  return value ? std::optional(*value) : std::nullopt;
}

std::vector<GpuKind> read_catalogue(std::string_view csv) {
  std::vector<GpuKind> gpus;
  gpus.reserve(256);
  bool header = true;
  for (std::string_view line : split(csv, '\n')) {
    if (header || line.empty()) {
      header = false;
      continue;
    }
    const auto f = csv_fields(line);
    if (f.size() < 19) continue;
    GpuKind g;
    g.name = f[0];
    for (std::string_view alias : split(f[1], '|')) {
      if (!alias.empty()) g.aliases.emplace_back(alias);
    }
    g.vendor = f[3];
    g.architecture = f[4];
    if (const auto parts = split(f[5], '.'); parts.size() == 2) {
      g.compute_major = static_cast<int>(parse_int(parts[0], "").value_or(0));
      g.compute_minor = static_cast<int>(parse_int(parts[1], "").value_or(0));
    }
    g.total = mib(parse_int(f[7], "").value_or(0));
    g.driver_reserve = g.total - mib(parse_int(f[8], "").value_or(0));
    g.unified = f[9] == "yes";
    g.bandwidth_gb_s = rate(f[10]);
    g.fp32_tflops = rate(f[11]);
    g.bf16_tflops = rate(f[12]);
    g.fp16_tflops = rate(f[13]);
    g.fp8_tflops = rate(f[14]);
    g.l2_mib = rate(f[15]);
    g.source = f[18];
    gpus.push_back(std::move(g));
  }
  return gpus;
}

struct Words {
  std::vector<std::string> core;  // sorted, without vendor and size words
  std::int64_t gigabytes = 0;     // 80 in "80gb"; 0: none
  bool operator==(const Words&) const = default;
};

bool is_form_word(std::string_view w) {
  static constexpr std::array<std::string_view, 12> kForms = {"sxm", "sxm2", "sxm3", "sxm4", "sxm5", "sxm6", "pcie", "hbm2", "hbm2e", "hbm3", "hbm3e", "edition"};
  return std::ranges::find(kForms, w) != kForms.end();
}

// Boards of one chip that people leave out; of those that fit, the one with the fewest such words.
bool is_board_word(std::string_view w) { return w == "workstation" || w == "server" || w == "blackwell" || w == "maxq" || w == "design"; }

// "16gb" and, as people type it, "16g".
std::optional<std::int64_t> gigabytes_in(std::string_view word) {
  const std::size_t digits = word.size() - (word.ends_with("gb") ? 2 : word.ends_with("g") ? 1 : 0);
  if (digits == word.size() || digits == 0 || !std::ranges::all_of(word.substr(0, digits), is_digit)) return std::nullopt;
  return parse_int(word.substr(0, digits), "").value_or(0);
}

Words words_of(std::string_view name) {
  static constexpr std::array<std::string_view, 11> kDropped = {"nvidia", "amd", "intel", "geforce", "radeon", "instinct", "tesla", "apple", "gpu", "generation", "graphics"};
  Words out;
  std::string word;
  const auto finish = [&] {
    if (word.empty()) return;
    if (const auto size = gigabytes_in(word)) {
      out.gigabytes = *size;
    } else if (word == "q" && !out.core.empty() && out.core.back() == "max") {
      out.core.back() = "maxq";
    } else if (const auto apart = word == "gb" && out.core.size() > 1 ? gigabytes_in(out.core.back() + word) : std::nullopt) {  // "80 GB"
      out.gigabytes = *apart;
      out.core.pop_back();
    } else if (word == "mobile") {
      out.core.push_back("laptop");
    } else if (std::ranges::find(kDropped, word) == kDropped.end()) {
      out.core.push_back(word);
    }
    word.clear();
  };
  for (char c : to_lower(name)) {
    if (c == ' ' || c == '-' || c == '_' || c == '(' || c == ')' || c == '\t') finish();
    else word += c;
  }
  finish();
  std::ranges::sort(out.core);
  return out;
}

std::string squeezed(const Words& w) {
  std::string out;
  for (const std::string& part : w.core) out += part;
  return out;
}

// How well a query fits a name: 0 not at all; up to kAlmost but for form words or the series name, one less for each word of the board; kSame: the same words.
constexpr int kAlmost = 10, kSame = 20;
int fit_words(const Words& query, const Words& name) {
  if (query.core.empty()) return 0;
  if (query.core == name.core || squeezed(query) == squeezed(name)) return kSame;
  if (!std::ranges::includes(name.core, query.core)) return 0;
  int score = kAlmost;
  for (const std::string& extra : name.core) {
    if (std::ranges::find(query.core, extra) != query.core.end() || is_form_word(extra) || extra == "rtx" || extra == "gtx" || extra == "rx") continue;
    if (!is_board_word(extra)) return 0;
    --score;
  }
  return score;
}

// The same; "sxm", whatever its number, is one where that alone differs ("A100-SXM-80GB", "H100 SXM5").
int fit(const Words& query, const Words& name) {
  const int exact = fit_words(query, name);
  const auto without_number = [](Words w) {
    for (std::string& part : w.core) {
      if (part.starts_with("sxm")) part.resize(3);
    }
    return w;
  };
  return exact != 0 ? exact : std::min(fit_words(without_number(query), without_number(name)), kAlmost / 2);
}

std::string gigabytes_text(Bytes b) { return std::to_string((b.count + (std::int64_t{1} << 29)) >> 30) + " GiB"; }

}  // namespace

std::span<const GpuKind> gpu_catalogue() {
  static const std::vector<GpuKind> gpus = read_catalogue(embedded_gpus_csv);
  return gpus;
}

Result<GpuKind> find_gpu(std::string_view name, std::optional<Bytes> total) {
  const Words query = words_of(name.substr(0, 200));
  int best = 0;
  std::vector<const GpuKind*> found;
  for (const GpuKind& g : gpu_catalogue()) {
    int score = fit(query, words_of(g.name));
    for (const std::string& alias : g.aliases) score = std::max(score, fit(query, words_of(alias)));
    // "GH200 480GB" names the host's memory: a whole name is taken at its word
    const bool whole = to_lower(trim(name)) == to_lower(g.name);
    if (whole) score = kSame + 1;
    if (!whole && query.gigabytes != 0 && std::abs(g.total.gib() - static_cast<double>(query.gigabytes)) > 0.07 * static_cast<double>(query.gigabytes)) score = 0;
    if (score > best) found.clear(), best = score;
    if (score == best && score > 0) found.push_back(&g);
  }
  if (found.empty()) {
    std::vector<std::string_view> names;
    for (const GpuKind& g : gpu_catalogue()) {
      names.push_back(g.name);
      for (const std::string& alias : g.aliases) names.push_back(alias);
    }
    return fail("unknown_gpu", "unknown GPU '" + std::string(name.substr(0, 60)) + "'", did_you_mean(name, names, "see: dryfit list gpus; or give its memory: --memory 24GiB"), "--gpu");
  }
  const auto distance = [&](const GpuKind* g) { return total ? std::abs((g->total - *total).count) : (g->total - g->driver_reserve).count; };
  const GpuKind* chosen = *std::ranges::min_element(found, {}, distance);
  GpuKind result = *chosen;
  const bool differ = std::ranges::any_of(found, [&](const GpuKind* g) { return std::abs((g->total - chosen->total).gib()) > 1; });
  if (differ && !total) result.note = "'" + std::string(name.substr(0, 60)) + "' comes in several sizes: took " + result.name + " with " + gigabytes_text(result.total) + "; --memory chooses another";
  return result;
}

int capability_for_dtype(const GpuKind& gpu) { return gpu.vendor == "Apple" || gpu.vendor == "Intel" ? 1 /* workload.hpp, kNoCuda */ : gpu.compute_major; }

std::optional<Bytes> slice_memory(std::string_view card, std::string_view profile) {
  struct Slice { std::string_view card, profile; int mib; };
  static constexpr Slice kSlices[] = {{"H100", "3g.40gb", 40448}, {"H100", "2g.20gb", 20096}, {"H100", "1g.10gb", 9984}, {"A100", "2g.20gb", 19968}, {"A100", "1g.10gb", 9856}};
  for (const Slice& s : kSlices) {
    if (card.find(s.card) != std::string_view::npos && profile == s.profile) return mib(s.mib);
  }
  return std::nullopt;
}

std::string_view name_of(MachineSource source) {
  static constexpr std::string_view kNames[] = {"flag", "nvml", "nvidia-smi", "sysfs", "recorded", "default"};
  return kNames[static_cast<std::size_t>(source)];
}

// Where no sourced figure exists: grows with the card, measured within about 210 MiB on 3 to 180 GiB (docs/gpus.md).
Bytes default_driver_reserve(Bytes total) { return mib(std::min<std::int64_t>(730, 400 + 3 * (total.count >> 30))); }

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
  const auto lower = to_lower(text);
  if (const auto mig = lower.find("mig "); mig != std::string::npos && (mig == 0 || lower[mig - 1] == ' ')) {
    out.profile = trim(std::string_view(lower).substr(mig + 4));
    text = trim(text.substr(0, mig));
  }
  const auto number = [](std::string_view digits) {
    digits = trim(digits);
    return !digits.empty() && digits.size() < 6 && std::ranges::all_of(digits, is_digit) ? std::optional(parse_int(digits, "").value_or(0)) : std::nullopt;
  };
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

// A GPU that a name alone does not find: the name taken apart.
Result<GpuKind> find_given(MachineFlags& flags) {
  auto gpu = find_gpu(*flags.gpu, flags.memory);
  if (gpu) return gpu;
  const GivenName given = taken_apart(*flags.gpu);
  if (given.name == *flags.gpu || given.name.empty()) return gpu;
  auto inner = find_gpu(given.name, flags.memory ? flags.memory : given.memory);
  if (!inner) return inner;
  if (!given.profile.empty()) inner->note.clear();
  if (given.count && !flags.gpus) flags.gpus = given.count;
  if (given.count && *flags.gpus != *given.count) inner->note += (inner->note.empty() ? "" : "; ") + std::string("of ") + std::to_string(*given.count) + " GPUs " + std::to_string(*flags.gpus) + (*flags.gpus == 1 ? " is used" : " are used");
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
    auto gpu = find_given(flags);
    if (!gpu) return std::unexpected(gpu.error());
    m.gpu = *gpu;
    m.total = gpu->total;
    m.driver_reserve = gpu->driver_reserve;
    if (!gpu->note.empty()) m.notes.push_back(gpu->note);
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

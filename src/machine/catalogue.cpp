// The GPU catalogue: reads the embedded data/gpus.csv, finds a GPU by what people and drivers call it. What else --gpu takes is given_gpu.cpp's.
#include <algorithm>
#include <array>

#include "base/embedded.hpp"
#include "base/text.hpp"
#include "machine/csv.hpp"
#include "machine/machine.hpp"

namespace dryfit {

namespace {

}  // namespace

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

namespace {

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

// Series of one number, which people leave out too: "RTX 4000" is three cards, and the plain one comes first.
bool is_series_word(std::string_view w) { return w == "ada" || w == "pro"; }

bool all_digits(std::string_view text) { return !text.empty() && std::ranges::all_of(text, is_digit); }

// "rtx4090" and "4070tisuper", as lists of offers write them, are words of their own.
std::vector<std::string> words_within(std::string word) {
  std::vector<std::string> out;
  for (const char* series : {"rtx", "gtx", "rx"}) {
    const std::size_t n = std::string_view(series).size();
    if (word.starts_with(series) && word.size() > n + 2 && std::ranges::any_of(word.substr(n), is_digit)) out.emplace_back(series), word.erase(0, n);
  }
  if (!out.empty() && word.starts_with("pro") && word.size() > 3) out.emplace_back("pro"), word.erase(0, 3);
  std::vector<std::string> behind;
  const std::size_t number = std::ranges::find_if_not(word, is_digit) - word.begin();
  for (bool found = number == 4; found;) {
    found = false;
    for (const auto& [suffix, meant] : {std::pair{"super", "super"}, {"laptop", "laptop"}, {"mobile", "laptop"}, {"ada", "ada"}, {"xtx", "xtx"}, {"xt", "xt"}, {"ti", "ti"}, {"s", "super"}}) {
      const std::size_t n = std::string_view(suffix).size();
      if (!found && word.size() >= number + n && word.ends_with(suffix)) behind.insert(behind.begin(), meant), word.erase(word.size() - n), found = true;
    }
  }
  out.push_back(std::move(word));
  out.insert(out.end(), behind.begin(), behind.end());
  return out;
}

// "16gb" and, as people type it, "16g".
std::optional<std::int64_t> gigabytes_in(std::string_view word) {
  const std::size_t digits = word.size() - (word.ends_with("gb") ? 2 : word.ends_with("g") ? 1 : 0);
  if (digits == word.size() || !all_digits(word.substr(0, digits))) return std::nullopt;
  return parse_int(word.substr(0, digits), "").value_or(0);
}

Words words_of(std::string_view name) {
  static constexpr std::array<std::string_view, 21> kDropped = {"nvidia", "amd", "intel", "geforce", "radeon", "instinct", "tesla", "apple", "gpu", "generation", "graphics", "tensor", "core", "data", "center", "hgx", "mega", "colab", "kaggle", "runpod", "oam"};
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
    } else if (word == "mobile" || word == "ws") {
      out.core.push_back(word == "ws" ? "workstation" : "laptop");
    } else if (std::ranges::find(kDropped, word) == kDropped.end()) {
      for (std::string& part : words_within(word)) out.core.push_back(std::move(part));
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

// How well a query fits a name: 0 not at all; up to kAlmost but for form words or "rtx", one less for each word of the board, at most kSeries where the series is left out; kSame: the same words.
constexpr int kSeries = 4, kAlmost = 10, kSame = 20;
int fit_words(const Words& query, const Words& name) {
  if (query.core.empty()) return 0;
  if (query.core == name.core || squeezed(query) == squeezed(name)) return kSame;
  if (!std::ranges::includes(name.core, query.core)) return 0;
  int score = kAlmost;
  for (const std::string& extra : name.core) {
    if (std::ranges::find(query.core, extra) != query.core.end() || is_form_word(extra) || extra == "rtx" || extra == "gtx" || extra == "rx") continue;
    if (is_series_word(extra)) score = std::min(score, kSeries);
    else if (!is_board_word(extra)) return 0;
    --score;
  }
  return std::max(score, 1);
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

// A row that fits what was typed, and how well.
struct Hit { const GpuKind* gpu; int score; };

std::vector<Hit> hits_of(std::string_view name, const Words& query) {
  std::vector<Hit> out;
  for (const GpuKind& g : gpu_catalogue()) {
    const bool series = g.vendor != "Apple";  // "M1" is not "M1 Pro"
    int score = 0;
    for (std::size_t i = 0; i <= g.aliases.size(); ++i) {
      const int of_name = fit(query, words_of(i == 0 ? g.name : g.aliases[i - 1]));
      score = std::max(score, of_name > kSeries || series ? of_name : 0);
    }
    // "GH200 480GB" names the host's memory: a whole name is taken at its word
    const bool whole = to_lower(trim(name)) == to_lower(g.name);
    if (whole) score = kSame + 1;
    if (!whole && query.gigabytes != 0 && std::abs(g.total.gib() - static_cast<double>(query.gigabytes)) > 0.07 * static_cast<double>(query.gigabytes)) score = 0;
    if (score > 0) out.push_back({&g, score});
  }
  return out;
}

// "a100 80": the number behind a name that is none otherwise is its memory.
std::optional<Words> with_bare_size(std::string_view name) {
  const std::size_t at = name.find_last_of(" -_");
  if (at == std::string_view::npos || at == 0 || name.size() - at > 4 || !all_digits(name.substr(at + 1))) return std::nullopt;
  Words out = words_of(name.substr(0, at));
  out.gigabytes = parse_int(name.substr(at + 1), "").value_or(0);
  return out.gigabytes > 0 ? std::optional(std::move(out)) : std::nullopt;
}

// Of those that fit best the one with the least memory, or with `total` the nearest.
const GpuKind* best_of(const std::vector<Hit>& hits, std::optional<Bytes> total) {
  const int best = std::ranges::max(hits, {}, &Hit::score).score;
  const auto distance = [&](const Hit& h) { return h.score < best ? INT64_MAX : total ? std::abs((h.gpu->total - *total).count) : (h.gpu->total - h.gpu->driver_reserve).count; };
  return std::ranges::min_element(hits, {}, distance)->gpu;
}

bool of_one_size(Bytes a, Bytes b) { return std::abs((a - b).gib()) <= 1; }

// What chooses a card of another size: the words as typed and its memory, or its name.
std::string name_for(const GpuKind& wanted, std::string_view typed, const Words& query) {
  const std::int64_t gigabytes = (wanted.total.count + (std::int64_t{1} << 29)) >> 30;
  if (query.gigabytes == 0) {
    const std::string text = std::string(typed) + " " + std::to_string(gigabytes) + "gb";
    const auto hits = hits_of(text, words_of(text));
    if (!hits.empty() && of_one_size(best_of(hits, std::nullopt)->total, wanted.total)) return text;
  }
  return wanted.name.starts_with("NVIDIA ") ? wanted.name.substr(7) : wanted.name;
}

// What to say where one name is cards of several sizes and nothing chooses between them; empty: nothing.
std::string several_sizes(const GpuKind& chosen, std::vector<Hit> hits, std::string_view typed, const Words& query) {
  constexpr std::size_t kMost = 4;
  const int best = std::ranges::max(hits, {}, &Hit::score).score;
  std::erase_if(hits, [&](const Hit& h) { return h.score < best && (best > kSame || h.score > kSeries); });
  std::ranges::stable_sort(hits, {}, [&](const Hit& h) { return std::pair(-h.score, h.gpu->total.count); });
  std::vector<const GpuKind*> others;
  for (const Hit& h : hits) {
    const auto said = [&](const GpuKind* g) { return of_one_size(g->total, h.gpu->total); };
    if (!said(&chosen) && std::ranges::none_of(others, said)) others.push_back(h.gpu);
  }
  if (others.empty()) return "";
  std::string names;
  for (std::size_t i = 0; i < std::min(others.size(), kMost); ++i) names += (i > 0 ? ", \"" : "\"") + name_for(*others[i], typed, query) + "\"";
  return "'" + std::string(typed) + "' comes in several sizes: took " + chosen.name + " with " + gigabytes_text(chosen.total) + "; others: --gpu " + names + (others.size() > kMost ? ", ... (dryfit list gpus)" : "");
}

// Names that begin as an unknown one does ("mi300"), else the nearest.
std::string hint_for_gpu(std::string_view name) {
  const std::string typed = squeezed(words_of(name));
  std::vector<std::string> longer;
  std::vector<std::string_view> names;
  for (const GpuKind& g : gpu_catalogue()) {
    if (typed.size() > 2 && squeezed(words_of(g.name)).starts_with(typed)) longer.push_back(g.name);
    names.push_back(g.name);
    for (const std::string& alias : g.aliases) names.push_back(alias);
  }
  for (const Instance& i : instances()) names.push_back(i.name);
  if (!longer.empty() && longer.size() < 4) {
    std::string out = "did you mean";
    for (std::size_t i = 0; i < longer.size(); ++i) out += (i == 0 ? " '" : " or '") + longer[i] + "'";
    return out + "?";
  }
  return did_you_mean(name, names, "see: dryfit list gpus; or give its memory: --memory 24GiB");
}

}  // namespace

std::string gigabytes_text(Bytes b) { return std::to_string((b.count + (std::int64_t{1} << 29)) >> 30) + " GiB"; }

std::span<const GpuKind> gpu_catalogue() {
  static const std::vector<GpuKind> gpus = read_catalogue(embedded_gpus_csv);
  return gpus;
}

Result<GpuKind> find_gpu(std::string_view name, std::optional<Bytes> total) {
  name = trim(name.substr(0, 200));
  Words query = words_of(name);
  auto hits = hits_of(name, query);
  const auto sized = hits.empty() ? with_bare_size(name) : std::nullopt;
  if (sized) query = *sized, hits = hits_of(name, query);
  if (hits.empty()) {
    const std::string family = instances_like(name);
    return fail("unknown_gpu", "unknown GPU '" + std::string(name.substr(0, 60)) + "'", family.empty() ? hint_for_gpu(name) : family, "--gpu");
  }
  const GpuKind* chosen = best_of(hits, total);
  GpuKind result = *chosen;
  if (!total) result.note = several_sizes(*chosen, hits, name.substr(0, 60), query);
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

}  // namespace dryfit

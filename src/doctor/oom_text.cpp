// See oom_text.hpp. Phrases decide, not whole templates: wrapped, truncated and half-quoted messages still give what they hold.
#include "doctor/oom_text.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/text.hpp"

namespace dryfit {

namespace {

bool blank(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

// Binary in all of these tools, even where they print "GB". 0: not a unit.
double unit_of(std::string_view word) {
  const std::string w = to_lower(word);
  if (w == "b" || w == "byte" || w == "bytes") return 1;
  if (w.size() > 3 || w.empty() || (w.size() > 1 && !w.ends_with('b')) || (w.size() == 3 && w[1] != 'i')) return 0;
  constexpr std::string_view kPrefixes = "kmgtpe";
  const std::size_t power = kPrefixes.find(w[0]);
  return power == npos ? 0 : std::ldexp(1.0, static_cast<int>(10 * (power + 1)));
}

std::string squeezed(std::string_view text) {  // any run of blanks to one space
  std::string out;
  for (char c : text) {
    if (!blank(c)) out += c;
    else if (!out.empty() && out.back() != ' ') out += ' ';
  }
  return out;
}

std::optional<Amount> after(std::string_view text, std::string_view phrase) {
  const std::size_t at = text.find(phrase);
  return at == npos ? std::nullopt : read_amount(text.substr(at + phrase.size()));
}

// The size that ends where the phrase begins: "<size> already allocated".
std::optional<Amount> amount_before(std::string_view text, std::size_t end) {
  std::size_t at = std::min(end, text.size());
  const auto back = [&](auto belongs) {
    while (at > 0 && belongs(text[at - 1])) --at;
  };
  back(blank);
  const std::size_t last = at;
  back(is_letter);
  back(blank);
  back([](char c) { return is_digit(c) || c == '.' || c == ','; });
  while (at < last && !is_digit(text[at])) ++at;
  std::size_t used = 0;
  const auto amount = read_amount(text.substr(at, last - at), &used);
  return amount && at + used == last ? amount : std::nullopt;
}
std::optional<Amount> before(std::string_view text, std::string_view phrase) {
  const std::size_t at = text.find(phrase);
  return at == npos ? std::nullopt : amount_before(text, at);
}

std::optional<std::int64_t> whole_after(std::string_view text, std::string_view phrase) {
  std::size_t at = text.find(phrase);
  if (at == npos) return std::nullopt;
  at += phrase.size();
  while (at < text.size() && text[at] == ' ') ++at;
  std::size_t end = at;
  while (end < text.size() && is_digit(text[end]) && end - at < 18) ++end;
  const auto n = parse_int(text.substr(at, end - at), "");
  return n ? std::optional(*n) : std::nullopt;
}
std::optional<Amount> bytes_after(std::string_view text, std::string_view phrase) {
  const auto n = whole_after(text, phrase);
  return n ? std::optional(Amount{Bytes(*n), Bytes(0)}) : std::nullopt;
}

std::optional<Amount> difference(const std::optional<Amount>& a, const std::optional<Amount>& b) {
  if (!a || !b) return std::nullopt;
  return Amount{std::max(Bytes(0), a->bytes - b->bytes), a->slack + b->slack};
}

// A phrase, all in lower case, and what it announces; in order of how much they tell.
struct Phrase { std::string_view text; Wording wording; };
constexpr Phrase kPhrases[] = {
    {"more than 1eb memory", Wording::exabyte},
    {"mps backend out of memory", Wording::mps},
    {"invalid buffer size:", Wording::mps},
    {"out of memory. tried to allocate", Wording::allocator},
    {"memory allocation failed with oom", Wording::allocator_warning},
    {"would exceed allowed memory", Wording::malloc_async},
    {"out of resource: shared memory", Wording::shared_memory},
    {"outofresources", Wording::shared_memory},
    {"oom when allocating tensor", Wording::tensorflow},
    {"from device: cuda_error_out_of_memory", Wording::tensorflow},
    {"resourceexhaustederror", Wording::tensorflow},
    {"resource_exhausted", Wording::xla},
    {"resource exhausted:", Wording::xla},
    {"ran out of memory in memory space", Wording::xla},
    {"cublas_status_alloc_failed", Wording::cublas},
    {"cublas_status_not_initialized", Wording::cublas},
    {"cusolver_status_alloc_failed", Wording::cublas},
    {"cusparse_status_alloc_failed", Wording::cublas},
    {"cufft_alloc_failed", Wording::cublas},
    {"cudnn_status_alloc_failed", Wording::cudnn},
    {"cudnn_status_not_initialized", Wording::cudnn},
    {"unable to find a valid cudnn algorithm", Wording::cudnn},
    {"failed to cuda calloc", Wording::nccl},
    {"failed to cuda malloc", Wording::nccl},
    {"cuda failure 'out of memory'", Wording::nccl},
    {"cuda failure 2 'out of memory'", Wording::nccl},
    {"cachinghostallocator", Wording::pinned},
    {"cudahostalloc", Wording::pinned},
    {"out of shared memory", Wording::host_allocator},
    {"killed process", Wording::host_killed},
    {"oom-kill", Wording::host_killed},
    {"oom_kill", Wording::host_killed},
    {"oomkilled", Wording::host_killed},
    {"cgroup out-of-memory handler", Wording::host_killed},
    {"killed by signal: killed", Wording::host_killed},
    {"node running low on memory", Wording::host_killed},
    {"(sigkill)", Wording::host_killed},
    {"signals.sigkill", Wording::host_killed},    // Python's subprocess, and so accelerate's launcher
    {"return code = -9", Wording::host_killed},   // DeepSpeed's launcher
    {"exitcode: -9", Wording::host_killed},
    {"exitcode : -9", Wording::host_killed},
    {"exitcode  : -9", Wording::host_killed},
    {"exit code 137", Wording::host_killed},
    {"exit code: 137", Wording::host_killed},
    {"out_of_memory: cuda error", Wording::runtime},  // RAPIDS: a std::bad_alloc of the card
    {"defaultcpuallocator:", Wording::host_allocator},
    {"unable to allocate", Wording::host_allocator},
    {"cannot allocate memory", Wording::host_allocator},
    {"std::bad_alloc", Wording::host_allocator},
    {"java heap space", Wording::host_allocator},
    {"cuda error: out of memory", Wording::runtime},
    {"hip error: out of memory", Wording::runtime},
    {"cuda driver error: out of memory", Wording::runtime},
    {"cuda runtime error (2)", Wording::runtime},
    {"cuda_error_out_of_memory", Wording::runtime},
    {"cudaerrormemoryallocation", Wording::runtime},
    {"hiperroroutofmemory", Wording::runtime},
    {"out_of_device_memory", Wording::runtime},
    {"pi_error_out_of_resources", Wording::runtime},
    {"cuda out of memory", Wording::allocator},
    {"hip out of memory", Wording::allocator},
    {"xpu out of memory", Wording::allocator},
    {"outofmemoryerror", Wording::allocator},
    {"memoryerror", Wording::host_allocator},
};

// `"CUDA out of memory" in str(e)`, `except torch.OutOfMemoryError:`: code that speaks of failures and is none.
bool is_code(std::string_view lower, std::size_t at, std::size_t size) {
  if (at > 0 && (lower[at - 1] == '"' || lower[at - 1] == '`')) return true;
  const std::string head = " " + std::string(trim(lower.substr(0, at))) + " ";
  for (std::string_view word : {" except ", " except (", "isinstance(", " raise ", " import ", " catch "}) {
    if (head.find(word) != npos) return true;
  }
  const char next = at + size < lower.size() ? lower[at + size] : ' ';
  return next == '(' || next == '"' || next == '_' || is_letter(next) || lower.find(" in str(") != npos;
}

bool needs_care(std::string_view phrase) {
  for (std::string_view bare : {"outofmemoryerror", "memoryerror", "cuda out of memory", "hip out of memory", "xpu out of memory", "cuda error: out of memory", "std::bad_alloc", "outofresources", "oom_kill", "resource_exhausted", "resourceexhaustederror"}) {
    if (phrase == bare) return true;
  }
  return false;
}

void fill_processes(Oom& oom, std::string_view text) {
  constexpr std::string_view kUse = " memory in use";
  for (std::size_t at = text.find(kUse); at != npos && oom.processes.size() < 64; at = text.find(kUse, at + 1)) {
    const auto memory = amount_before(text, at);
    if (!memory) continue;
    const std::size_t has = text.rfind(" has ", at);
    if (has == npos || at - has > 64) continue;
    const std::string_view who = text.substr(0, has);
    if (who.ends_with("this process")) {
      oom.this_process = memory;
      continue;
    }
    const std::size_t name = who.rfind("rocess ");
    const auto pid = name == npos || who.size() - name > 32 ? std::nullopt : whole_after(who.substr(name), "rocess ");
    if (pid) oom.processes.push_back({*pid, *memory});
  }
}

void fill_allocator(Oom& oom, std::string_view text) {
  oom.requested = after(text, "ried to allocate ");
  oom.device = whole_after(text, "GPU ");
  fill_processes(oom, text);
  oom.allowed = before(text, " allowed");
  if (text.find(" total capacity;") != npos || text.find("already allocated") != npos) {
    oom.total = before(text, " total capacity");
    oom.allocated = before(text, " already allocated");
    oom.free = before(text, " free");
    oom.reserved = before(text, " reserved in total");
    oom.idle = before(text, " cached");
    if (oom.reserved) oom.idle = difference(oom.reserved, oom.allocated);
    else if (oom.idle && oom.allocated) oom.reserved = Amount{oom.allocated->bytes + oom.idle->bytes, oom.allocated->slack + oom.idle->slack};
    oom.torch = text.find(" cached") != npos ? "1.3 or older" : text.find("If reserved memory") != npos ? "1.10 to 2.0" : "1.4 to 1.9";
    return;
  }
  const bool misspelt = text.find("total capacty of") != npos;
  oom.total = after(text, misspelt ? "total capacty of " : "total capacity of ");
  oom.free = before(text, " is free");
  oom.allocated = before(text, " is allocated by PyTorch");
  oom.idle = before(text, " is reserved by PyTorch but unallocated");
  oom.private_pools = before(text, " allocated in private pools");
  if (oom.allocated && oom.idle) oom.reserved = Amount{oom.allocated->bytes + oom.idle->bytes, oom.allocated->slack + oom.idle->slack};
  if (!oom.total) return;
  oom.torch = misspelt ? "2.1" : oom.private_pools || oom.allowed ? "2.4 or newer" : "2.2 or newer";
  if (text.find("PYTORCH_ALLOC_CONF") != npos) oom.torch = "2.9 or newer";
}

void fill_async(Oom& oom, std::string_view text) {
  oom.device = whole_after(text, "on device ");
  const auto value = [&](std::string_view label) -> std::optional<Amount> {
    const std::size_t at = text.find(label);
    if (at == npos) return std::nullopt;
    const std::size_t colon = text.find(':', at + label.size());
    return colon == npos || colon - at > label.size() + 48 ? std::nullopt : read_amount(text.substr(colon + 1));
  };
  oom.allocated = value("Currently allocated");
  oom.reserved = oom.allocated;  // the driver's pool: PyTorch only counts
  oom.requested = value("Requested");
  oom.total = value("Device limit");
  oom.free = value("(according to CUDA)");
  oom.allowed = value("memory fraction)");
}

void fill_mps(Oom& oom, std::string_view text) {
  oom.allocated = oom.reserved = after(text, "MPS allocated: ");
  oom.other_allocations = after(text, "other allocations: ");
  oom.allowed = after(text, "max allowed: ");
  oom.requested = after(text, "ried to allocate ");
  if (!oom.requested) oom.requested = after(text, "nvalid buffer size: ");
}

void fill_xla(Oom& oom, std::string_view text) {
  for (std::string_view phrase : {"hile trying to allocate ", "Out of memory allocating ", "llocating "}) {
    if (!oom.requested) oom.requested = bytes_after(text, phrase);
  }
  if (const std::size_t at = text.find("ailed to allocate request for "); at != npos) {
    oom.requested = after(text, "ailed to allocate request for ");
    if (const auto exact = bytes_after(text.substr(at), "(")) oom.requested = exact;
    oom.device = whole_after(text, "device ordinal ");
  }
  if (const auto used = after(text, "Used ")) {
    oom.allocated = used;
    const std::size_t of = text.find(" of ", text.find("Used "));
    if (of != npos) oom.total = read_amount(text.substr(of + 4));
    oom.backend = text.find("hbm") != npos ? Backend::tpu : oom.backend;
  }
  if (const auto total = after(text, "total allocation:")) oom.allocated = total;  // of BufferAssignment: the whole program
}

void fill_tensorflow(Oom& oom, std::string_view text) {
  oom.requested = after(text, "failed to allocate ");
  if (const std::size_t at = text.find("failed to allocate "); at != npos) {
    if (const auto exact = bytes_after(text.substr(at), "(")) oom.requested = exact;
  }
}

void fill_host(Oom& oom, std::string_view text, std::string_view lower) {
  oom.backend = Backend::host;
  oom.requested = bytes_after(text, "ou tried to allocate ");
  if (!oom.requested) oom.requested = after(text, "nable to allocate ");
  if (const auto rss = after(text, "anon-rss:")) oom.allocated = rss;
  if (lower.find("shared memory") != npos) oom.detail = "shm";
  else if (lower.find("java heap") != npos) oom.detail = "java";
  else if (lower.find("cgroup") != npos || lower.find("oom-kill:constraint=constraint_memcg") != npos || lower.find("oomkilled") != npos) oom.detail = "cgroup";
  else if (oom.wording == Wording::host_killed) oom.detail = "killed";
}

Backend backend_of(Wording wording, std::string_view lower) {
  if (wording == Wording::mps) return Backend::mps;
  if (wording == Wording::host_allocator || wording == Wording::host_killed || wording == Wording::pinned) return Backend::host;
  const std::string_view head = lower.substr(0, 200);
  if (head.find("xpu") != npos || head.find("out_of_device_memory") != npos || head.find("pi_error") != npos) return Backend::xpu;
  if (head.find("hip") != npos || head.find("rocm") != npos) return Backend::hip;
  if (wording == Wording::xla || wording == Wording::tensorflow) return Backend::unknown;
  return Backend::cuda;
}

}  // namespace

std::string_view name_of(Wording wording) {
  static constexpr std::string_view kNames[] = {"allocator", "allocator_warning", "malloc_async", "mps", "exabyte", "runtime", "pinned", "cublas", "cudnn", "nccl", "xla", "tensorflow", "shared_memory", "host_allocator", "host_killed"};
  return kNames[static_cast<std::size_t>(wording)];
}

std::string_view name_of(Backend backend) {
  static constexpr std::string_view kNames[] = {"cuda", "hip", "xpu", "mps", "tpu", "host", "unknown"};
  return kNames[static_cast<std::size_t>(backend)];
}

bool same_numbers(const Oom& a, const Oom& b) {
  const auto same = [](const std::optional<Amount>& x, const std::optional<Amount>& y) { return x.has_value() == y.has_value() && (!x || x->bytes == y->bytes); };
  return a.wording == b.wording && a.backend == b.backend && a.device == b.device && same(a.requested, b.requested) && same(a.total, b.total) && same(a.free, b.free) && same(a.allocated, b.allocated) &&
         same(a.idle, b.idle) && same(a.this_process, b.this_process) && a.detail == b.detail;
}

std::optional<Amount> read_amount(std::string_view text, std::size_t* end) {
  std::size_t at = 0;
  while (at < text.size() && blank(text[at])) ++at;
  double value = 0, step = 1;
  std::size_t digits = 0;
  for (bool fraction = false; at < text.size(); ++at) {
    const char c = text[at];
    if (is_digit(c)) {
      value = value * 10 + (c - '0');
      step = fraction ? step / 10 : step;
      ++digits;
    } else if (c == '.' && !fraction && at + 1 < text.size() && is_digit(text[at + 1])) {
      fraction = true;
    } else if (!(c == ',' && digits > 0 && !fraction && at + 3 < text.size() && is_digit(text[at + 1]) && is_digit(text[at + 2]) && is_digit(text[at + 3]))) {
      break;
    }
  }
  if (digits == 0 || digits > 24) return std::nullopt;
  while (at < text.size() && blank(text[at])) ++at;
  std::size_t word = at;
  while (word < text.size() && is_letter(text[word])) ++word;
  const double unit = unit_of(text.substr(at, word - at));
  if (unit == 0) return std::nullopt;
  const double bytes = value * step * unit;
  if (!(bytes < 9.0e18)) return std::nullopt;  // 17179869184.00 GiB is how "no limit" and "not available" print
  if (end != nullptr) *end = word;
  return Amount{Bytes(std::llround(bytes)), Bytes(unit == 1 ? 0 : static_cast<std::int64_t>(std::ceil(step * unit / 2)))};
}

std::vector<OomStart> find_oom(std::string_view line) {
  std::vector<OomStart> found;
  const std::string lower = to_lower(line);
  const auto one_space = [&](std::string_view phrase, std::size_t from) { return std::string_view(lower).find(phrase, from); };
  for (const Phrase& phrase : kPhrases) {
    for (std::size_t at = one_space(phrase.text, 0); at != npos && found.size() < 64; at = one_space(phrase.text, at + phrase.text.size())) {
      if (needs_care(phrase.text) && is_code(lower, at, phrase.text.size())) continue;
      std::size_t start = at;  // the backend's name stands before
      if (phrase.text.starts_with("out of memory.")) start = at >= 5 ? at - 5 : 0;
      if (phrase.wording == Wording::malloc_async) start = std::min(at, lower.rfind("allocation on device", at));
      if (phrase.wording == Wording::tensorflow || phrase.wording == Wording::pinned || phrase.wording == Wording::host_killed || phrase.wording == Wording::exabyte) start = 0;
      found.push_back({phrase.wording, start});
    }
    if (!found.empty()) break;
  }
  if (found.empty()) {  // a bare word of a shell, alone on its line or after a job's number
    const std::string_view word = trim(lower);
    const std::size_t at = word.find(" killed ");
    if (word == "killed" || (word.ends_with(" killed") && word.find(':') != npos) || (at != npos && word.find("line ") != npos && word.find("python") > at)) found.push_back({Wording::host_killed, 0});
  }
  std::ranges::sort(found, {}, &OomStart::at);
  return found;
}

bool oom_complete(Wording wording, std::string_view text) {
  const auto has = [&](std::string_view phrase) { return text.find(phrase) != npos; };
  switch (wording) {
    case Wording::allocator: return has("but unallocated") || has("reserved in total by PyTorch") || has(" cached)");
    case Wording::malloc_async: return has("memory fraction)") && text.rfind(':') > text.find("memory fraction)") && text.find("iB", text.find("memory fraction)")) != npos;
    case Wording::mps: return has(" pool") || has("buffer size: ");
    case Wording::xla: return has("total fragmentation") || has("device ordinal");
    default: return true;
  }
}

bool oom_continues(Wording wording, std::string_view text, std::string_view line) {
  if (oom_complete(wording, text) || text.size() > 4096) return false;
  const std::string_view body = trim(line);
  if (wording == Wording::malloc_async) {
    for (std::string_view start : {"Currently", "Requested", "Device limit", "Free", "PyTorch limit", ":"}) {
      if (body.starts_with(start)) return true;
    }
    return false;
  }
  if (wording == Wording::xla) return body.starts_with("BufferAssignment") || body.find("allocation:") != npos || body.find("fragmentation:") != npos || body.starts_with("Used ") || body.starts_with("Exceeded");
  if (wording != Wording::allocator && wording != Wording::mps) return false;
  // a wrapped sentence goes on with one of its own words, or with a number
  for (std::string_view start : {"GPU ", "(GPU", "Process ", "process ", "Including", "including", "non-PyTorch", "this process", "memory", "has ", "in use", "Of ", "of ", "the ", "allocated", "is ", "by ", "and ", "and\n", "with ", "reserved",
                                 "PyTorch", "but ", "unallocated", "free", "total", "capacity", "which", "Tried", "tried", "to ", "already", "GiB", "MiB", "KiB", "MPS", "other", "max", "on ", "private", "shared"}) {
    if (body.starts_with(start)) return true;
  }
  return !body.empty() && is_digit(body[0]) && read_amount(body).has_value();
}

Oom parse_oom(Wording wording, std::string_view raw) {
  const std::string text = squeezed(raw.substr(0, 8192));
  const std::string lower = to_lower(text);
  Oom oom;
  oom.wording = wording;
  oom.backend = backend_of(wording, lower);
  switch (wording) {
    case Wording::allocator: fill_allocator(oom, text); break;
    case Wording::allocator_warning:
      oom.device = whole_after(text, "on device ");
      oom.requested = bytes_after(text, "trying to allocate ");
      oom.free = bytes_after(text, "free: ");
      oom.total = bytes_after(text, "total: ");
      oom.torch = "2.13 or newer";
      break;
    case Wording::malloc_async: fill_async(oom, text); break;
    case Wording::mps: fill_mps(oom, text); break;
    case Wording::xla: fill_xla(oom, text); break;
    case Wording::tensorflow: fill_tensorflow(oom, text); break;
    case Wording::nccl:
      oom.detail = "NCCL";
      oom.requested = bytes_after(text, "alloc ");
      break;
    case Wording::cublas: oom.detail = lower.find("cusolver") != npos ? "cuSOLVER" : lower.find("cusparse") != npos ? "cuSPARSE" : lower.find("cufft") != npos ? "cuFFT" : "cuBLAS"; break;
    case Wording::cudnn: oom.detail = "cuDNN"; break;
    case Wording::shared_memory:
      oom.requested = bytes_after(text, "equired: ");
      oom.allowed = bytes_after(text, "ardware limit: ");
      break;
    case Wording::host_allocator:
    case Wording::host_killed: fill_host(oom, text, lower); break;
    case Wording::runtime:
      if (lower.find("acceleratorerror") != npos) oom.torch = "2.8 or newer";
      break;
    case Wording::pinned:
    case Wording::exabyte: break;
  }
  return oom;
}

}  // namespace dryfit

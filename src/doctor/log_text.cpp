// See log_text.hpp.
#include "doctor/log_text.hpp"

#include <algorithm>
#include <array>

#include "base/text.hpp"

namespace dryfit {

namespace {

bool word_char(char c) { return is_digit(c) || is_letter(c) || c == '_'; }
bool contains(std::string_view text, std::string_view part) { return text.find(part) != npos; }

// Digits at the start, commas between thousands allowed. Empty: none, or more than 15.
std::optional<std::int64_t> whole(std::string_view text, std::size_t* used = nullptr) {
  std::int64_t n = 0;
  std::size_t at = 0, digits = 0;
  for (; at < text.size(); ++at) {
    if (is_digit(text[at])) {
      if (++digits > 15) return std::nullopt;
      n = n * 10 + (text[at] - '0');
    } else if (!(text[at] == ',' && digits > 0 && at + 1 < text.size() && is_digit(text[at + 1]))) {
      break;
    }
  }
  if (used != nullptr) *used = at;
  return digits == 0 ? std::nullopt : std::optional(n);
}

// A decimal number at the start: "1,234.56". Empty: none.
std::optional<double> decimal(std::string_view text, std::size_t* used = nullptr) {
  std::size_t at = 0;
  const auto n = whole(text, &at);
  if (!n) return std::nullopt;
  auto value = static_cast<double>(*n);
  if (at + 1 < text.size() && text[at] == '.' && is_digit(text[at + 1])) {
    double step = 0.1;
    for (++at; at < text.size() && is_digit(text[at]); ++at, step /= 10) value += (text[at] - '0') * step;
  }
  if (used != nullptr) *used = at;
  return value;
}

// What follows a label and its separators: "tok/sec: 424,242", "mfu 41.2%", "step=12".
std::string_view behind(std::string_view text, std::size_t at) {
  while (at < text.size() && (text[at] == ' ' || text[at] == ':' || text[at] == '=' || text[at] == '"' || text[at] == '\'' || text[at] == '#' || text[at] == '[')) ++at;
  return text.substr(std::min(at, text.size()));
}

std::optional<double> labelled(std::string_view lower, std::initializer_list<std::string_view> labels, std::string_view* rest = nullptr) {
  for (std::string_view label : labels) {
    for (std::size_t at = lower.find(label); at != npos; at = lower.find(label, at + 1)) {
      if (at > 0 && word_char(lower[at - 1])) continue;
      const std::string_view text = behind(lower, at + label.size());
      std::size_t used = 0;
      const auto value = decimal(text, &used);
      if (!value) continue;
      if (rest != nullptr) *rest = text.substr(used);
      return value;
    }
  }
  return std::nullopt;
}

bool step_number(std::string_view lower, StepLine& out) {
  for (std::string_view label : {"global_step", "global step", "iteration", "step", "iter"}) {
    for (std::size_t at = lower.find(label); at != npos; at = lower.find(label, at + 1)) {
      const std::size_t end = at + label.size();
      if ((at > 0 && (is_letter(lower[at - 1]) || lower[at - 1] == '_' || lower[at - 1] == '-')) || (end < lower.size() && is_letter(lower[end]))) continue;
      const std::string_view text = behind(lower, end);
      std::size_t used = 0;
      const auto n = whole(text, &used);
      if (!n) continue;
      out.step = n;
      std::string_view rest = text.substr(used);
      while (!rest.empty() && rest[0] == ' ') rest.remove_prefix(1);
      if (!rest.empty() && rest[0] == '/') out.planned = whole(trim(rest.substr(1)));
      return true;
    }
  }
  return false;
}

// "  12/1000 [00:12<16:20,  1.01it/s]" of a training loop; bars of downloads and of loading are left out.
bool bar_count(std::string_view lower, StepLine& out) {
  if (!contains(lower, "it/s") && !contains(lower, "s/it")) return false;
  for (std::string_view other : {"load", "fetch", "map", "token", "shard", "example", "extract", "upload", "eval", "valid", "generat"}) {
    if (contains(lower, other)) return false;
  }
  const std::size_t bracket = lower.find(" [");
  const std::size_t slash = bracket == npos ? npos : lower.rfind('/', bracket);
  if (slash == npos || slash == 0) return false;
  std::size_t start = slash;
  while (start > 0 && is_digit(lower[start - 1])) --start;
  out.step = whole(lower.substr(start, slash - start));
  out.planned = whole(lower.substr(slash + 1));
  out.bar = true;
  return out.step && out.planned;
}

struct Needle { std::string_view text; Phase phase; Part part; int rank; };
constexpr Needle kFunctions[] = {
    {"do_bench", Phase::unknown, Part::compile, 90}, {"autotune", Phase::unknown, Part::compile, 90}, {"benchmark", Phase::unknown, Part::compile, 90},
    {"evaluate", Phase::evaluation, Part::unknown, 80}, {"evaluation_loop", Phase::evaluation, Part::unknown, 80}, {"prediction_step", Phase::evaluation, Part::unknown, 80},
    {"validat", Phase::evaluation, Part::unknown, 80}, {"estimate_loss", Phase::evaluation, Part::unknown, 80}, {"test_step", Phase::evaluation, Part::unknown, 80},
    {"generate", Phase::sampling, Part::unknown, 75}, {"prefill", Phase::sampling, Part::unknown, 75},
    {"save_checkpoint", Phase::checkpoint, Part::unknown, 70}, {"save_model", Phase::checkpoint, Part::unknown, 70}, {"save_pretrained", Phase::checkpoint, Part::unknown, 70},
    {"load_checkpoint", Phase::startup, Part::resume, 65}, {"load_state_dict", Phase::startup, Part::resume, 65},
    {"_init_group", Phase::unknown, Part::optimizer, 60}, {"_single_tensor_adam", Phase::unknown, Part::optimizer, 60}, {"_multi_tensor_adam", Phase::unknown, Part::optimizer, 60}, {"_fused_adam", Phase::unknown, Part::optimizer, 60},
    {"newtonschulz", Phase::unknown, Part::optimizer, 60}, {"polar_express", Phase::unknown, Part::optimizer, 60}, {"muon", Phase::unknown, Part::optimizer, 60},
    {"_engine_run_backward", Phase::unknown, Part::backward, 50}, {"backward", Phase::unknown, Part::backward, 50},
    {"cross_entropy", Phase::unknown, Part::loss, 40}, {"log_softmax", Phase::unknown, Part::loss, 40}, {"forcausallmloss", Phase::unknown, Part::loss, 40},
    {"forward", Phase::unknown, Part::forward, 30},
    {"_flatten_tensors", Phase::startup, Part::load, 28}, {"_init_param_handle", Phase::startup, Part::load, 28},
    {"all_gather", Phase::unknown, Part::collective, 20}, {"reduce_scatter", Phase::unknown, Part::collective, 20}, {"all_reduce", Phase::unknown, Part::collective, 20}, {"broadcast", Phase::unknown, Part::collective, 20},
    {"init_process_group", Phase::startup, Part::collective, 20}, {"_verify_param_shape", Phase::startup, Part::collective, 25}, {"_sync_module_states", Phase::startup, Part::collective, 25},
    {"from_pretrained", Phase::startup, Part::load, 15}, {"_lazy_init", Phase::startup, Part::load, 15}, {"init_weights", Phase::startup, Part::load, 15}, {"to_empty", Phase::startup, Part::load, 15},
    {"pin_memory", Phase::unknown, Part::data, 12}, {"_next_data", Phase::unknown, Part::data, 12},
};
constexpr Needle kCode[] = {
    {"estimate_loss(", Phase::evaluation, Part::unknown, 80}, {"evaluate(", Phase::evaluation, Part::unknown, 80}, {"evaluate_", Phase::evaluation, Part::unknown, 80}, {"validate(", Phase::evaluation, Part::unknown, 80},
    {".generate(", Phase::sampling, Part::unknown, 75}, {"torch.save(", Phase::checkpoint, Part::unknown, 70}, {"save_checkpoint(", Phase::checkpoint, Part::unknown, 70},
    {"torch.load(", Phase::startup, Part::resume, 65}, {"load_state_dict(", Phase::startup, Part::resume, 65}, {"load_checkpoint(", Phase::startup, Part::resume, 65},
    {"optimizer.step(", Phase::unknown, Part::optimizer, 60}, {"opt.step(", Phase::unknown, Part::optimizer, 60}, {"scaler.step(", Phase::unknown, Part::optimizer, 60}, {"optim.step(", Phase::unknown, Part::optimizer, 60},
    {".backward(", Phase::unknown, Part::backward, 50}, {"cross_entropy(", Phase::unknown, Part::loss, 40}, {"logits.float(", Phase::unknown, Part::loss, 40}, {"loss_fct(", Phase::unknown, Part::loss, 40},
    {"model(", Phase::unknown, Part::forward, 30}, {".to(device", Phase::startup, Part::load, 10}, {".cuda(", Phase::startup, Part::load, 10}, {"set_device(", Phase::startup, Part::load, 10}, {"from_pretrained(", Phase::startup, Part::load, 15},
};
constexpr Needle kFiles[] = {
    {"core_eval.py", Phase::evaluation, Part::unknown, 80}, {"loss_eval.py", Phase::evaluation, Part::unknown, 80}, {"base_eval.py", Phase::evaluation, Part::unknown, 80},
    {"checkpoint_manager.py", Phase::startup, Part::resume, 45}, {"torch/optim/", Phase::unknown, Part::optimizer, 60}, {"/optim.py", Phase::unknown, Part::optimizer, 60}, {"/muon.py", Phase::unknown, Part::optimizer, 60}, {"/adamw.py", Phase::unknown, Part::optimizer, 60},
    {"torch/autograd/", Phase::unknown, Part::backward, 45}, {"pin_memory.py", Phase::unknown, Part::data, 12},
};

}  // namespace

std::string printable(std::string_view text, std::size_t most) {
  std::string out;
  for (char c : text) {
    const auto u = static_cast<unsigned char>(c);
    if (c == '\t') out += ' ';
    else if (u >= 32 && u != 127) out += c;
    if (out.size() > most + 4) break;
  }
  if (out.size() <= most) return out;
  std::size_t end = most;
  while (end > 0 && (static_cast<unsigned char>(out[end]) & 0xC0) == 0x80) --end;
  return out.substr(0, end) + "...";
}

std::string without_escapes(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '\0') continue;
    if (c == '\b') {
      if (!out.empty()) out.pop_back();
      continue;
    }
    if (c != '\x1b') {
      out += c;
      continue;
    }
    const char kind = i + 1 < text.size() ? text[i + 1] : '\0';
    if (kind == '[') {  // CSI: up to a letter or one of @`~ and the like
      std::size_t j = i + 2;
      while (j < text.size() && j < i + 66 && (static_cast<unsigned char>(text[j]) < 0x40 || static_cast<unsigned char>(text[j]) > 0x7E)) ++j;
      i = j;
    } else if (kind == ']') {  // OSC: up to BEL or ESC backslash
      std::size_t j = i + 2;
      while (j < text.size() && text[j] != '\a' && text[j] != '\x1b') ++j;
      i = j < text.size() && text[j] == '\x1b' ? j + 1 : j;
    } else {
      ++i;
    }
  }
  return out;
}

StreamPrefix stream_prefix(std::string_view line) {
  StreamPrefix out{{}, std::nullopt, line};
  for (int round = 0; round < 3; ++round) {
    std::string_view rest = out.rest;
    std::size_t end = 0;
    std::optional<std::int64_t> rank;
    for (std::string_view open : {"[rank", "[default"}) {
      if (!rest.starts_with(open)) continue;
      std::size_t used = 0;
      rank = whole(rest.substr(open.size()), &used);
      const std::size_t close = open.size() + used;
      if (rank && rest.substr(close).starts_with("]:")) end = close + 2;
    }
    if (end == 0 && rest.starts_with("[")) {  // mpirun --tag-output: [job,rank]<stdout>:
      std::size_t used = 0, more = 0;
      const auto job = whole(rest.substr(1, rest.find(',') == npos ? 0 : rest.find(',') - 1), &used);
      if (job && 1 + used < rest.size() && rest[1 + used] == ',') {
        rank = whole(rest.substr(2 + used, 9), &more);
        const std::string_view tail = rest.substr(std::min(rest.size(), 2 + used + more));
        if (rank && (tail.starts_with("]<stdout>:") || tail.starts_with("]<stderr>:"))) end = 2 + used + more + 10;
      }
    } else if (end == 0 && rest.starts_with("(") && contains(rest.substr(0, 120), " pid=")) {  // Ray
      const std::size_t close = rest.find(')');
      if (close != npos && close < 120) end = close + 1;
    } else if (end == 0 && !rest.empty() && is_digit(rest[0])) {  // srun --label
      std::size_t used = 0;
      const auto n = whole(rest.substr(0, 6), &used);
      if (n && rest.substr(used).starts_with(": ")) rank = n, end = used + 1;
    }
    if (end == 0) break;
    rest = rest.substr(end);
    if (!rest.empty() && rest[0] == ' ') ++end;
    if (rank && !out.rank) out.rank = rank;
    out.rest = out.rest.substr(std::min(end, out.rest.size()));
    out.key = line.substr(0, line.size() - out.rest.size());
  }
  return out;
}

std::optional<Frame> read_frame(std::string_view line) {
  const std::size_t py = line.find(".py");
  if (py == npos) return std::nullopt;
  Frame frame;
  std::string_view rest = line.substr(py + 3);
  std::size_t start = py;
  const auto path_char = [](char c) { return word_char(c) || c == '/' || c == '.' || c == '-' || c == '~' || c == '\\' || c == ':' || static_cast<unsigned char>(c) >= 0x80 || c == '<' || c == '>' || c == '+'; };
  const bool quoted = rest.starts_with("\", line ");
  while (start > 0 && (quoted ? line[start - 1] != '"' : path_char(line[start - 1]))) --start;
  if (quoted) {
    rest.remove_prefix(8);
  } else if (rest.starts_with(":")) {
    rest.remove_prefix(1);
  } else if (rest.starts_with(" in ")) {
    rest.remove_prefix(4);
    frame.function = printable(rest.substr(0, rest.find('(')), 80);
  } else {
    return std::nullopt;
  }
  if (frame.function.empty()) {
    std::size_t used = 0;
    const auto number = whole(rest, &used);
    if (!number) return std::nullopt;
    frame.line = *number;
    rest.remove_prefix(used);
    if (rest.starts_with(",")) rest.remove_prefix(1);
    if (!rest.starts_with(" in ")) return std::nullopt;
    rest.remove_prefix(4);
    std::size_t end = 0;
    while (end < rest.size() && rest[end] != '(' && rest[end] != ' ' && rest[end] != '\t') ++end;
    frame.function = printable(rest.substr(0, end), 80);
  }
  std::string path(line.substr(start, py + 3 - start));
  std::ranges::replace(path, '\\', '/');
  std::size_t keep = path.size();
  for (int parts = 0; parts < 4 && keep != 0 && keep != npos; ++parts) keep = path.rfind('/', keep - 1);
  frame.file = printable(keep == npos || keep == 0 ? path : path.substr(keep + 1), 160);
  return frame.function.empty() ? std::nullopt : std::optional(frame);
}

std::optional<StepLine> read_step(std::string_view line) {
  if (line.size() > 4096) line = line.substr(0, 4096);
  const std::string lower = to_lower(line);
  StepLine out;
  if (bar_count(lower, out)) return out;
  bool is_step = false;
  for (std::string_view evidence : {"loss", "tok/s", "tokens/s", "mfu", "train_time", "step_time", "dt:", "ms/it", "lr"}) is_step = is_step || contains(lower, evidence);
  if (!is_step || contains(lower, "resum") || contains(lower, "validation") || contains(lower, "val_") || contains(lower, "val loss") || contains(lower, "core metric") || !step_number(lower, out)) return std::nullopt;
  std::string_view rest;
  out.milliseconds = labelled(lower, {"dt", "step_time", "step_avg", "step time", "iter time", "time"}, &rest);
  if (out.milliseconds && !trim(rest).starts_with("ms")) {
    out.milliseconds = trim(rest).starts_with("s") ? std::optional(*out.milliseconds * 1000) : std::nullopt;
  }
  out.tokens_per_second = labelled(lower, {"tok/sec", "tok/s", "tokens/sec", "tokens/s", "tokens_per_sec", "tokens per sec"});
  if (const std::size_t at = lower.find(" tok"); !out.tokens_per_second && at != npos && contains(lower.substr(at, 12), "/s")) {  // "1,234 tokens/s"
    std::size_t start = at;
    while (start > 0 && (is_digit(lower[start - 1]) || lower[start - 1] == ',' || lower[start - 1] == '.')) --start;
    out.tokens_per_second = decimal(std::string_view(lower).substr(start));
  }
  out.mfu = labelled(lower, {"bf16_mfu", "mfu"}, &rest);
  if (out.mfu) {
    if (*out.mfu > 1 || rest.starts_with("%") || contains(lower, "tok/sec")) *out.mfu /= 100;  // nanochat prints per cent
    if (*out.mfu <= 0 || *out.mfu > 1) out.mfu.reset();                                       // 0: unknown GPU
  }
  return out;
}

std::optional<MemoryReading> read_memory(std::string_view line) {
  if (line.size() > 4096) line = line.substr(0, 4096);
  // nvidia-smi: "| 30%  60C  P2  300W / 350W |  20123MiB / 24576MiB |" or its query: "20123 MiB, 24576 MiB"
  if (const std::size_t slash = line.find("MiB / "); slash != npos) {
    std::size_t start = slash;
    while (start > 0 && is_digit(line[start - 1])) --start;
    const auto used = read_amount(line.substr(start)), total = read_amount(line.substr(slash + 6));
    if (used && total) return MemoryReading{"nvidia-smi", *used, total};
  }
  if (const std::size_t comma = line.find(" MiB, "); comma != npos && comma < 24) {
    const auto used = read_amount(trim(line)), total = read_amount(line.substr(comma + 6));
    if (used && total && used->bytes <= total->bytes) return MemoryReading{"nvidia-smi query", *used, total};
  }
  const std::string lower = to_lower(line);
  if (contains(lower, "out of memory") || contains(lower, "tried to allocate")) return std::nullopt;
  for (std::string_view label : {"max_memory_allocated", "max_memory_reserved", "memory_allocated", "memory_reserved", "max_mem", "peak_mem", "peak_vram_mib", "peak memory usage", "peak memory", "gpu_mem", "gpu mem", "max mem", "cuda mem", "memory", "vram", "mem"}) {
    const std::size_t at = lower.find(label);
    if (at == npos || (at > 0 && (is_letter(lower[at - 1])))) continue;
    std::size_t from = at + label.size();
    while (from < lower.size() && from < at + label.size() + 24 && !is_digit(lower[from]) && lower[from] != '|' && lower[from] != ',') ++from;
    if (from >= lower.size() || !is_digit(lower[from])) continue;
    const auto used = read_amount(std::string_view(lower).substr(from));
    if (used && used->bytes >= mib(16) && used->bytes <= gib(1024)) return MemoryReading{std::string(label), *used, std::nullopt};
    const auto plain = whole(std::string_view(lower).substr(from));  // "memory: 10234" and "..._mib 10234"
    if (!used && plain && *plain >= 64 && *plain < 1'000'000 && (label == "memory" || label == "max_mem" || label == "peak_vram_mib")) return MemoryReading{std::string(label), {mib(*plain), mib(1)}, std::nullopt};
    return std::nullopt;
  }
  return std::nullopt;
}

std::string_view find_command(std::string_view line) {
  std::size_t best = npos;
  for (std::string_view program : {"torchrun ", "python ", "python3 ", "accelerate launch ", "deepspeed "}) {
    for (std::size_t at = line.find(program); at != npos; at = line.find(program, at + 1)) {
      const char previous = at == 0 ? ' ' : line[at - 1];
      if (previous != ' ' && previous != '/' && previous != '\t' && previous != '$' && previous != '"' && previous != '\'') continue;
      best = std::min(best, at);
      break;
    }
  }
  if (best == npos) return {};
  const std::string_view tail = line.substr(best);
  const bool open = trim(tail).ends_with("\\");  // the script may stand on the next line
  const bool names_script = (contains(tail, ".py") || contains(tail, " -m ")) && contains(tail, "train");
  if (!names_script && !open) return {};
  while (best > 0 && line[best - 1] != ' ' && line[best - 1] != '"' && line[best - 1] != '\'') --best;  // "/usr/bin/torchrun"
  for (;;) {                                                                                          // assignments before it
    std::size_t end = best;
    while (end > 0 && line[end - 1] == ' ') --end;
    std::size_t start = end;
    while (start > 0 && line[start - 1] != ' ') --start;
    const std::string_view word = line.substr(start, end - start);
    const std::size_t eq = word.find('=');
    const bool assignment = eq != npos && eq > 0 && std::ranges::all_of(word.substr(0, eq), [](char c) { return (c >= 'A' && c <= 'Z') || c == '_' || is_digit(c); });
    if (!assignment) break;
    best = start;
  }
  return line.substr(best);
}

std::string_view name_of(Phase phase) {
  static constexpr std::string_view kNames[] = {"unknown", "startup", "first_step", "second_step", "train_step", "evaluation", "sampling", "checkpoint"};
  return kNames[static_cast<std::size_t>(phase)];
}

std::string_view name_of(Part part) {
  static constexpr std::string_view kNames[] = {"unknown", "load", "resume", "data", "forward", "loss", "backward", "optimizer", "compile", "collective"};
  return kNames[static_cast<std::size_t>(part)];
}

FramePlace place_of(const Frame& frame) {
  FramePlace best;
  const auto consider = [&](std::string_view text, std::span<const Needle> needles) {
    for (const Needle& n : needles) {
      if (n.rank > best.rank && contains(text, n.text)) best = {n.phase, n.part, n.rank};
    }
  };
  const std::string function = to_lower(frame.function), code = to_lower(frame.code), file = to_lower(frame.file);
  if (function != "_maybe_log_save_evaluate") consider(function, kFunctions);
  if (!contains(code, "_maybe_log_save_evaluate")) consider(code, kCode);
  if (!contains(file, "utils/checkpoint.py")) consider(file, kFiles);
  return best;
}

std::optional<AskedTensor> read_asked_tensor(std::string_view code) {
  const std::size_t at = code.find("empty_strided");
  const std::size_t open = at == npos ? npos : code.find("((", at);
  const std::size_t close = open == npos ? npos : code.find(')', open);
  const std::size_t type = close == npos ? npos : code.find("torch.", close);
  if (type == npos) return std::nullopt;
  std::size_t end = type + 6;
  while (end < code.size() && word_char(code[end])) ++end;
  AskedTensor out{printable(code.substr(open + 2, close - open - 2), 80), printable(code.substr(type + 6, end - type - 6), 24)};
  while (!out.shape.empty() && (out.shape.back() == ',' || out.shape.back() == ' ')) out.shape.pop_back();
  if (out.shape.find_first_not_of("0123456789, ") != std::string::npos) return std::nullopt;
  return out;
}

}  // namespace dryfit

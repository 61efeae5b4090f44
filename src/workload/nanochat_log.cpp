// See nanochat_log.hpp.
#include "workload/nanochat_log.hpp"

#include <algorithm>

#include "base/text.hpp"

namespace dryfit {

namespace {

constexpr std::size_t kLongestLine = 4096;

// The number that begins `text`, thousands separators allowed; what follows it is not looked at.
std::optional<double> number_at(std::string_view text) {
  text = trim(text);
  std::string digits;
  for (char c : text.substr(0, 40)) {
    if (is_digit(c) || c == '.' || c == '-' || c == '+' || c == 'e') digits += c;
    else if (c != ',') break;
  }
  const auto n = parse_real(digits, "");
  return n ? std::optional(*n) : std::nullopt;
}

std::optional<std::int64_t> whole_at(std::string_view text) {
  const auto n = number_at(text);
  return n && *n >= 0 && *n < 9e15 ? std::optional(static_cast<std::int64_t>(*n)) : std::nullopt;
}

// What stands after `label`.
std::optional<std::string_view> after(std::string_view line, std::string_view label) {
  const std::size_t at = line.find(label);
  return at == std::string_view::npos ? std::nullopt : std::optional(line.substr(at + label.size()));
}

std::optional<double> value(std::string_view line, std::string_view label) {
  const auto rest = after(line, label);
  return rest ? number_at(*rest) : std::nullopt;
}

std::optional<std::int64_t> whole(std::string_view line, std::string_view label) {
  const auto rest = after(line, label);
  return rest ? whole_at(*rest) : std::nullopt;
}

std::optional<double> median(std::vector<double> values) {
  if (values.size() < 5) return std::nullopt;
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::ranges::nth_element(values, middle);
  return *middle;
}

void keep(std::vector<double>& values, double v) {
  if (values.size() >= LogReader::kRates) values.erase(values.begin());
  values.push_back(v);
}

}  // namespace

std::string_view name_of(LogPhase phase) {
  switch (phase) {
    case LogPhase::loading: return "loading";
    case LogPhase::first_step: return "first step";
    case LogPhase::training: return "training";
    case LogPhase::ended: return "ended";
  }
  return "";
}

std::optional<LogStep> parse_step_line(std::string_view line) {
  line = line.substr(0, kLongestLine);
  const auto rest = after(line, "step ");
  if (!rest || line.find("| loss: ") == std::string_view::npos || rest->empty() || (*rest)[0] < '0' || (*rest)[0] > '9') return std::nullopt;
  LogStep s;
  const std::size_t end = std::min(rest->find_first_not_of("0123456789"), rest->size());
  const auto step = parse_int(rest->substr(0, std::min<std::size_t>(end, 18)), "");
  if (!step) return std::nullopt;
  s.step = *step;
  if (end < rest->size() && (*rest)[end] == '/') s.of = whole_at(rest->substr(end + 1));
  s.loss = value(line, "| loss: ");
  if (const auto ms = value(line, "| dt: "); ms && *ms > 0) s.seconds = *ms / 1000;
  if (const auto rate = value(line, "| tok/sec: "); rate && *rate > 0) s.tokens_per_second = *rate;
  if (const auto percent = value(line, "mfu: "); percent && *percent >= 0) s.mfu = *percent / 100;
  if (const auto minutes = value(line, "| total time: "); minutes && *minutes >= 0) s.total_seconds = *minutes * 60;
  if (const auto minutes = value(line, "| eta: "); minutes && *minutes >= 0) s.eta_seconds = *minutes * 60;
  return s;
}

LogPhase LogRun::phase() const {
  if (peak_allocated) return LogPhase::ended;
  if (steps >= 1) return LogPhase::training;
  return validations > 0 || device_batch_size ? LogPhase::first_step : LogPhase::loading;
}

std::optional<double> LogRun::median_rate() const { return median(rates); }
std::optional<double> LogRun::median_mfu() const { return median(mfus); }

void LogReader::begin() {
  if (run_.steps == 0 && !run_.peak_allocated) return;
  if (earlier_.size() < kMostRuns) earlier_.push_back(std::move(run_));
  run_ = {};
}

void LogReader::step(const LogStep& s) {
  if (run_.last && s.step < run_.last->step) begin();
  if (!run_.first) run_.first = s;
  run_.last = s;
  run_.fine_tuning = !s.of;
  ++run_.steps;
  if (run_.steps <= 10) return;  // nanochat leaves its first ten out of its own timing: compilation, warming up
  if (s.tokens_per_second) keep(run_.rates, *s.tokens_per_second);
  if (s.mfu) keep(run_.mfus, *s.mfu);
}

bool LogReader::header(std::string_view text) {
  const auto starts = [&](std::string_view label) { return text.starts_with(label); };
  if (starts("GPU: ")) {
    begin();
    const std::string_view rest = text.substr(5);
    run_.gpu = std::string(trim(rest.substr(0, std::min<std::size_t>(rest.find('|'), 96))));
  } else if (starts("COMPUTE_DTYPE: ")) {
    begin();
    const std::string_view rest = text.substr(15);
    run_.dtype = rest.starts_with("torch.bfloat16") ? "bf16" : rest.starts_with("torch.float16") ? "fp16" : rest.starts_with("torch.float32") ? "fp32" : "";
    if (run_.dtype->empty()) run_.dtype.reset();
  } else if (starts("Vocab size: ")) {
    begin();
    run_.vocab = whole(text, "Vocab size: ");
  } else if (starts("num_layers: ")) {
    begin();
    run_.depth = whole(text, "num_layers: ");
  } else if (starts("model_dim: ")) {
    run_.width = whole(text, "model_dim: ");
  } else if (starts("num_heads: ")) {
    run_.heads = whole(text, "num_heads: ");
  } else if (starts("Tokens / micro-batch / rank: ")) {
    begin();
    run_.device_batch_size = whole(text, "/ rank: ");
    run_.max_seq_len = whole(text, " x ");
  } else if (starts("Tokens / micro-batch: ")) {
    const auto tokens = whole(text, "micro-batch: ");
    const std::int64_t each = run_.device_batch_size.value_or(0) > 0 && run_.max_seq_len.value_or(0) > 0 ? (Bytes(*run_.device_batch_size) * *run_.max_seq_len).count : 0;
    if (tokens && each > 0 && *tokens % each == 0) run_.world_size = *tokens / each;
  } else if (starts("Total batch size ")) {
    run_.total_batch_size = whole(text, "Total batch size ");
    run_.grad_accum_steps = whole(text, "accumulation steps: ");
  } else if (starts("Resuming optimization from step ")) {
    run_.resumed_at = whole(text, "from step ");
  } else if (text.find("FP8 training enabled") != std::string_view::npos) {
    run_.fp8 = true;
  } else if (text.find("Using Flash Attention 3") != std::string_view::npos) {
    run_.flash_attention3 = true;
  } else if (text.find("using PyTorch SDPA fallback") != std::string_view::npos) {
    run_.flash_attention3 = false;
  } else {
    return false;
  }
  return true;
}

// The model's configuration, printed as JSON over several lines since E5.
bool LogReader::configuration(std::string_view text) {
  struct Key { std::string_view name; std::optional<std::int64_t> LogRun::*field; };
  if (!text.starts_with('"')) return false;
  for (const Key& key : {Key{"\"n_layer\": ", &LogRun::depth}, Key{"\"n_embd\": ", &LogRun::width}, Key{"\"n_head\": ", &LogRun::heads}, Key{"\"vocab_size\": ", &LogRun::vocab}, Key{"\"sequence_len\": ", &LogRun::max_seq_len}}) {
    if (text.starts_with(key.name)) run_.*key.field = whole_at(text.substr(key.name.size()));
  }
  if (const auto pattern = after(text, "\"window_pattern\": \"")) run_.window_pattern = std::string(pattern->substr(0, std::min<std::size_t>(pattern->find('"'), 64)));
  return true;
}

void LogReader::line(std::string_view text) {
  text = trim(text.substr(0, kLongestLine));
  if (text.starts_with("[rank0]:")) text = trim(text.substr(8));
  if (text.empty()) return;
  if (const auto s = parse_step_line(text)) return step(*s);
  if (header(text) || configuration(text)) return;
  if (text.starts_with("Step ")) {
    if (const auto bpb = value(text, "| Validation bpb: ")) run_.validation_bpb = bpb, ++run_.validations;
    if (const auto core = value(text, "| CORE metric: ")) run_.core_metric = core, ++run_.core_evaluations;
  } else if (const auto peak = value(text, "Peak memory usage: "); peak && *peak > 0 && *peak < 1e9 && text.ends_with("MiB")) {
    run_.peak_allocated = Bytes(static_cast<std::int64_t>(*peak * (1 << 20) + 0.5));
  } else if (text.starts_with("Total training time: ")) {
    if (const auto minutes = value(text, "time: ")) run_.training_seconds = *minutes * 60;
  }
}

std::vector<LogRun> LogReader::runs() const {
  std::vector<LogRun> out = earlier_;
  if (run_.steps > 0 || run_.peak_allocated || run_.device_batch_size) out.push_back(run_);
  return out;
}

std::optional<WorkloadFlags> flags_of(const LogRun& run) {
  if (!run.depth || !run.device_batch_size || !run.max_seq_len) return std::nullopt;
  WorkloadFlags f;
  f.depth = run.depth;
  f.device_batch_size = run.device_batch_size;
  f.max_seq_len = run.max_seq_len;
  f.total_batch_size = run.total_batch_size;
  f.gpus = run.world_size;
  f.vocab_size = run.vocab;
  f.window_pattern = run.window_pattern;
  f.dtype = run.dtype;
  if (run.fp8) f.fp8 = true;
  if (run.flash_attention3 == true) f.attention = "fa3";
  if (run.width && run.heads.value_or(0) > 0 && *run.width % *run.heads == 0 && *run.width / *run.heads != 128) f.head_dim = *run.width / *run.heads;
  if (run.width && *run.depth > 0 && round_up(*run.depth * 64, f.head_dim.value_or(128)) != *run.width && *run.width % *run.depth == 0) f.aspect_ratio = *run.width / *run.depth;
  return f;
}

}  // namespace dryfit

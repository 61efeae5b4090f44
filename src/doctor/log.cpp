// See log.hpp. A sieve of words (word_filter.hpp) lets most lines pass unread; the rest go to the parsers of log_text and oom_text.
#include "doctor/log.hpp"

#include <algorithm>

#include "base/text.hpp"
#include "doctor/word_filter.hpp"

namespace dryfit {

namespace {

enum : std::uint32_t { kOomWord = 1, kFrameWord = 2, kStepWord = 4, kMemoryWord = 8, kConfigWord = 16, kCommandWord = 32, kDirty = 64 };

constexpr std::string_view kNul("\0", 1);
constexpr WordFilter::Word kLineWords[] = {
    {"out of memory", kOomWord}, {"outofmemory", kOomWord}, {"out_of_memory", kOomWord}, {"out-of-memory", kOomWord}, {"out of resource", kOomWord}, {"outofresource", kOomWord}, {"out_of_resource", kOomWord}, {"out_of_device", kOomWord},
    {"resource_exhausted", kOomWord}, {"resource exhausted", kOomWord}, {"out of shared memory", kOomWord}, {"running low on memory", kOomWord}, {"memory in memory space", kOomWord}, {"tried to allocate", kOomWord}, {"more than 1eb", kOomWord},
    {"failed with oom", kOomWord}, {"exceed allowed memory", kOomWord}, {"alloc_failed", kOomWord}, {"_not_initialized", kOomWord}, {"valid cudnn algorithm", kOomWord}, {"cuda calloc", kOomWord}, {"cuda malloc", kOomWord},
    {"hostalloc", kOomWord}, {"runtime error (2)", kOomWord}, {"memoryallocation", kOomWord}, {"oom when", kOomWord}, {"oom-kill", kOomWord}, {"oom_kill", kOomWord}, {"oomkilled", kOomWord}, {"killed", kOomWord}, {"sigkill", kOomWord},
    {": -9", kOomWord}, {"= -9", kOomWord}, {"resourceexhausted", kOomWord}, {"code 137", kOomWord}, {"code: 137", kOomWord}, {"memoryerror", kOomWord}, {"cpuallocator", kOomWord}, {"bad_alloc", kOomWord}, {"to allocate", kOomWord}, {"allocate memory", kOomWord}, {"java heap", kOomWord},
    {"invalid buffer size", kOomWord},
    {".py", kFrameWord}, {"traceback", kFrameWord}, {"--> ", kFrameWord},
    {"step", kStepWord}, {"iter", kStepWord}, {"it/s", kStepWord}, {"s/it", kStepWord},
    {"mem", kMemoryWord}, {"vram", kMemoryWord}, {"mib", kMemoryWord},
    {"\"n_", kConfigWord}, {"sequence_len", kConfigWord}, {"window_pattern", kConfigWord}, {"vocab size", kConfigWord}, {"num_layers", kConfigWord}, {"num_heads", kConfigWord}, {"model_dim", kConfigWord},
    {"tokens / micro", kConfigWord}, {"total batch size", kConfigWord}, {"overriding:", kConfigWord}, {"peak flops", kConfigWord}, {"compute_dtype", kConfigWord}, {"fp8 training", kConfigWord}, {"flash attention", kConfigWord},
    {"number of parameters", kConfigWord}, {"total  ", kConfigWord}, {"alloc_conf", kConfigWord}, {"world size", kConfigWord}, {"peak memory usage", kConfigWord}, {"validation bpb", kConfigWord},
    {"torchrun", kCommandWord}, {"python", kCommandWord}, {"accelerate launch", kCommandWord}, {"deepspeed", kCommandWord},
    {"\x1b", kDirty}, {"\b", kDirty}, {kNul, kDirty},
};

const WordFilter& sieve() {
  static const WordFilter filter(kLineWords);
  return filter;
}

std::optional<std::int64_t> number_after(std::string_view text, std::string_view label) {
  std::size_t at = text.find(label);
  if (at == npos) return std::nullopt;
  at += label.size();
  while (at < text.size() && (text[at] == ' ' || text[at] == ':' || text[at] == '"' || text[at] == '=')) ++at;
  std::int64_t n = 0;
  int digits = 0;
  for (; at < text.size() && (is_digit(text[at]) || (text[at] == ',' && digits > 0 && at + 1 < text.size() && is_digit(text[at + 1]))); ++at) {
    if (text[at] == ',') continue;
    if (++digits > 15) return std::nullopt;
    n = n * 10 + (text[at] - '0');
  }
  return digits == 0 ? std::nullopt : std::optional(n);
}

std::string word_after(std::string_view text, std::string_view label) {
  const std::size_t at = text.find(label);
  if (at == npos) return {};
  std::string_view rest = text.substr(at + label.size());
  rest.remove_prefix(std::min(rest.size(), rest.find_first_not_of(" \t\":=")));
  return printable(rest.substr(0, rest.find_first_of(" ,|\t)")), 120);
}

}  // namespace

void Series::add(double x, double y) {
  largest_ = count_ == 0 ? y : std::max(largest_, y);
  if (count_++ % stride_ != 0) return;
  points_.push_back({x, y});
  if (points_.size() <= kMost) return;
  std::size_t kept = 0;
  for (std::size_t i = 0; i < points_.size(); i += 2) points_[kept++] = points_[i];
  points_.resize(kept);
  stride_ *= 2;
}

std::optional<double> Series::median() const {
  if (points_.empty()) return std::nullopt;
  std::vector<double> y;
  for (const Point& p : points_) y.push_back(p.y);
  std::ranges::nth_element(y, y.begin() + static_cast<std::ptrdiff_t>(y.size() / 2));
  return y[y.size() / 2];
}

// A loop that prints every tenth step begins with a number above 1; nanochat prints each, and begins above 1 only when it resumes.
std::int64_t RunLog::steps_done() const {
  if (!steps.first || !steps.last) return 0;
  return *steps.first > 1 && !nanochat ? *steps.last : *steps.last - *steps.first + 1;
}

const RunLog& LogFacts::run(std::int64_t id) const {
  const auto found = std::ranges::find(runs, id, &RunLog::id);
  return found == runs.end() ? runs.back() : *found;
}

const RunLog* LogFacts::last_run() const {
  const auto found = std::ranges::find_if(runs.rbegin(), runs.rend(), [](const RunLog& r) { return r.steps.seen > 0 || r.peak || r.nanochat; });
  return found == runs.rend() ? nullptr : &*found;
}

LogScanner::LogScanner() : reader_([this](const Line& l) { line(l); }) {
  facts_.runs.push_back({});
  facts_.runs.back().line = 1;
}

LogFacts LogScanner::finish() {
  reader_.finish();
  for (auto& [key, stream] : streams_) {
    if (stream.pending) close(stream);
    if (!stream.command.empty()) command({}, 0, stream);
  }
  facts_.encoding = reader_.encoding();
  facts_.bytes = reader_.bytes();
  facts_.lines = reader_.lines();
  facts_.odd_bytes = reader_.odd_bytes();
  std::ranges::stable_sort(facts_.events, {}, [](const OomEvent& e) { return std::pair(e.line, e.column); });
  return std::move(facts_);
}

LogScanner::Stream& LogScanner::stream_of(const StreamPrefix& prefix) {
  const auto found = streams_.find(prefix.key);
  if (found != streams_.end()) return found->second;
  return streams_[streams_.size() >= kMostStreams ? std::string("(others)") : std::string(prefix.key)];
}

void LogScanner::line(const Line& line) {
  const std::uint32_t words = sieve().match(line.text);
  if ((words & kDirty) != 0) return clean(line);
  if (words == 0 && open_ == 0) return;
  const StreamPrefix prefix = stream_prefix(line.text);
  Stream& stream = stream_of(prefix);
  if (stream.pending) {
    Pending& p = *stream.pending;
    if (--p.lines_left >= 0 && oom_continues(p.wording, p.text, prefix.rest)) {
      p.text += '\n';
      p.text += prefix.rest;
      if (oom_complete(p.wording, p.text)) close(stream);
      return;
    }
    close(stream);
  }
  if (!stream.command.empty()) return command(prefix.rest, line.number, stream);
  if (stream.wants_code) {
    stream.wants_code = false;
    --open_;
    if (!read_frame(prefix.rest) && !stream.frames.empty() && (words & kOomWord) == 0) stream.frames.back().code = printable(trim(prefix.rest), 160);
  }
  if ((words & kFrameWord) != 0) frame(prefix.rest, stream);
  if ((words & kOomWord) != 0) oom(line, prefix, stream);
  if ((words & kConfigWord) != 0) config(prefix.rest, line.number);
  if ((words & kStepWord) != 0) {
    if (const auto s = read_step(prefix.rest)) step(*s, line.number);
  }
  if ((words & kMemoryWord) != 0) memory(prefix.rest);
  if ((words & kCommandWord) != 0 && (words & kOomWord) == 0 && prefix.rest.find("File \"") == npos) command(prefix.rest, line.number, stream);
}

// Colours and cursor movements stand between and within words: the line is read again without them.
void LogScanner::clean(const Line& dirty) {
  const std::string text = without_escapes(dirty.text);
  if (!text.empty() && text.size() < dirty.text.size()) line({text, dirty.number, dirty.column});
}

void LogScanner::oom(const Line& line, const StreamPrefix& prefix, Stream& stream) {
  const auto starts = find_oom(prefix.rest);
  for (std::size_t i = 0; i < starts.size(); ++i) {
    const std::size_t end = i + 1 < starts.size() ? starts[i + 1].at : prefix.rest.size();
    const std::string_view text = prefix.rest.substr(starts[i].at, std::min<std::size_t>(end - starts[i].at, LineReader::kOverlap));
    OomEvent event;
    event.line = line.number;
    event.column = line.column + static_cast<std::int64_t>(line.text.size() - prefix.rest.size() + starts[i].at);
    event.stream = printable(trim(prefix.key), 60);
    event.rank = prefix.rank;
    event.run = run().id;
    event.steps_done = run().steps_done();
    event.validated = run().validated;
    event.frames = stream.frames;
    const std::size_t lead = std::min<std::size_t>(starts[i].at, 40);  // the exception's class
    event.quote = printable(trim(prefix.rest.substr(starts[i].at - lead, 160)), 120);
    stream.pending = Pending{std::move(event), starts[i].wording, std::string(text), 14};
    ++open_;
    const bool last = i + 1 == starts.size();
    if (!last || oom_complete(starts[i].wording, text)) close(stream);
  }
}

void LogScanner::close(Stream& stream) {
  Pending pending = std::move(*stream.pending);
  stream.pending.reset();
  --open_;
  pending.event.oom = parse_oom(pending.wording, pending.text);
  const std::string_view quote = pending.event.quote;
  if (pending.wording == Wording::allocator && quote.find("torch.OutOfMemoryError") != npos && pending.event.oom.torch.starts_with("2.") && pending.event.oom.torch < "2.5") pending.event.oom.torch = "2.5 or newer";
  if (pending.wording == Wording::runtime && quote.find("AcceleratorError") != npos) pending.event.oom.torch = "2.8 or newer";
  record(std::move(pending.event));
}

void LogScanner::record(OomEvent event) {
  for (auto it = facts_.events.rbegin(); it != facts_.events.rend(); ++it) {
    if (it->run != event.run) continue;
    if (it->stream != event.stream) {  // torch prints a rank's traceback twice: with its prefix, and bare
      if ((!it->stream.empty() && !event.stream.empty()) || !event.oom.requested || !same_numbers(it->oom, event.oom)) continue;
      ++it->repeats;
      if (it->stream.empty()) it->stream = event.stream, it->rank = event.rank;
      if (it->frames.empty()) it->frames = std::move(event.frames);
      return;
    }
    if (it->line == event.line && it->column == event.column) return;  // seen already, in the overlap of a long line's pieces
    const bool bare = event.oom.wording == Wording::allocator && !event.oom.requested && it->oom.wording == Wording::allocator && event.line - it->line < 64;
    if (same_numbers(it->oom, event.oom) || bare) {
      ++it->repeats;
      if (it->frames.empty()) it->frames = std::move(event.frames);
      return;
    }
    if (event.oom.wording == Wording::nccl && it->oom.wording == Wording::nccl && event.line - it->line <= 8) {  // one failure in two lines
      if (!it->oom.requested) it->oom.requested = event.oom.requested;
      return;
    }
  }
  if (facts_.events.size() >= kMostEvents) {
    ++facts_.events_beyond;
    return;
  }
  facts_.events.push_back(std::move(event));
}

void LogScanner::frame(std::string_view text, Stream& stream) {
  if (text.find("Traceback (most recent call last)") != npos) stream.frames.clear();
  auto f = read_frame(text);
  if (!f) {
    const std::size_t arrow = text.find("--> ");  // notebooks mark the line that failed
    if (arrow != npos && !stream.frames.empty()) stream.frames.back().code = printable(trim(text.substr(arrow + 4)), 160);
    return;
  }
  if (stream.frames.size() >= kMostFrames) stream.frames.erase(stream.frames.begin() + 8);
  stream.frames.push_back(std::move(*f));
  stream.wants_code = true;
  ++open_;
}

void LogScanner::begin_run(std::int64_t number) {
  if (facts_.runs.size() >= kMostRuns) {
    auto idle = std::ranges::find_if(facts_.runs, [&](const RunLog& r) { return std::ranges::none_of(facts_.events, [&](const OomEvent& e) { return e.run == r.id; }); });
    facts_.runs.erase(idle == facts_.runs.end() ? facts_.runs.begin() : idle);
  }
  facts_.runs.push_back({});
  run().id = next_run_++;
  run().line = number;
}

void LogScanner::command(std::string_view text, std::int64_t number, Stream& stream) {
  const bool open = !stream.command.empty();
  std::string_view words = open ? text : find_command(text);
  if (words.empty() && !open) return;
  if (!open) stream.command_line = number;
  else --open_;
  words = trim(words);
  const bool more = words.ends_with("\\") && stream.command.size() < 8192;
  if (more) words = trim(words.substr(0, words.size() - 1));
  stream.command += (open ? " " : "") + printable(words, 8192);
  if (more) {
    ++open_;
    return;
  }
  const std::string whole = std::move(stream.command);
  stream.command.clear();
  if (whole == run().command || find_command(whole).empty()) return;
  if (!run().command.empty() || run().steps.seen > 0 || run().nanochat) begin_run(stream.command_line);
  run().command = whole;
  run().command_line = stream.command_line;
}

void LogScanner::config(std::string_view text, std::int64_t number) {
  const auto first = [&](std::optional<std::int64_t>& field, std::string_view label) {
    const auto n = number_after(text, label);
    if (!n || *n <= 0) return false;
    field = n;
    return true;
  };
  if (number_after(text, "Vocab size:")) {  // the first line of nanochat's own account of itself
    if (run().vocab) begin_run(number);
    run().nanochat = true;
  }
  RunLog& r = run();
  first(r.vocab, "Vocab size:") || first(r.layers, "num_layers:") || first(r.layers, "\"n_layer\"") || first(r.heads, "num_heads:") || first(r.heads, "\"n_head\"") ||
      first(r.width, "\"n_embd\"") || first(r.width, "model_dim:") || first(r.seq_len, "\"sequence_len\"") || first(r.parameters, "Number of parameters:") || first(r.ranks, "world size:");
  r.json_config = r.json_config || text.find("\"n_layer\"") != npos;
  if (text.starts_with("total ") && text.find(':') != npos && r.nanochat && !r.parameters) first(r.parameters, text.substr(0, text.find(':')));
  if (const std::size_t at = text.find("Tokens / micro-batch / rank:"); at != npos) {
    r.nanochat = true;
    first(r.device_batch, "rank:");
    const std::size_t times = text.find(" x ", at);
    if (times != npos) r.seq_len = number_after(text.substr(times), " x ");
    first(r.rank_tokens, " = ");
  } else if (text.find("Tokens / micro-batch:") != npos) {
    first(r.all_tokens, "micro-batch:");
  }
  if (text.find("gradient accumulation steps:") != npos) {
    r.nanochat = true;
    first(r.total_batch, "Total batch size");
    first(r.grad_accum, "steps:");
  }
  if (text.find("Overriding: ") != npos) {
    const std::string key = word_after(text, "Overriding: ");
    if (const auto n = number_after(text, " = "); n && r.overridden.size() < 64 && !key.empty()) r.overridden[key] = *n;
  }
  if (text.find("window_pattern") != npos && text.find("WARNING") == npos) {
    std::string pattern = word_after(text, "window_pattern");
    std::erase_if(pattern, [](char c) { return c != 'S' && c != 'L'; });
    if (!pattern.empty()) r.window_pattern = pattern;
  }
  if (const std::size_t at = text.find("Peak FLOPS"); at != npos && text.starts_with("GPU: ")) r.gpu = printable(trim(text.substr(5, text.find('|') == npos ? npos : text.find('|') - 5)), 80);
  if (text.find("COMPUTE_DTYPE: ") != npos) r.dtype = word_after(text, "COMPUTE_DTYPE: ");
  if (text.find("FP8 training enabled") != npos) r.fp8 = true;
  if (text.find("Using Flash Attention 3") != npos) r.flash3 = true;
  if (text.find("Flash Attention 3") != npos && text.find("SDPA") != npos) r.sdpa = true;
  if (text.find("Validation bpb") != npos && text.find("Step") != npos) r.validated = true;
  for (std::string_view name : {"PYTORCH_CUDA_ALLOC_CONF=", "PYTORCH_ALLOC_CONF=", "PYTORCH_HIP_ALLOC_CONF="}) {
    // an error message recommends a setting; only an export or an assignment is one
    if (text.find(name) == npos || text.find("try setting") != npos || text.find("avoid fragmentation") != npos) continue;
    std::string conf = printable(trim(text.substr(text.find(name) + name.size())), 120);
    conf = conf.substr(0, conf.find_first_of(" ;&\t"));
    std::erase_if(conf, [](char c) { return c == '"' || c == '\''; });
    if (!conf.empty()) r.alloc_conf = conf;
  }
  if (text.find("Peak memory usage:") != npos) {
    const auto peak = read_amount(text.substr(text.find("usage:") + 6));
    if (peak) r.peak = peak->bytes;
  }
}

void LogScanner::step(const StepLine& s, std::int64_t number) {
  if (s.step) {
    Steps& before = run().steps;
    const bool failed = std::ranges::any_of(facts_.events, [&](const OomEvent& e) { return e.run == run().id && e.oom.wording != Wording::allocator_warning; });
    if (before.last && *s.step <= 1 && *s.step < *before.last && failed) begin_run(number);  // counted anew after a failure
    else if (before.last && !s.bar && !before.bar && *s.step < *before.last && *s.step <= before.first.value_or(0) + 1 && run().steps_done() > 2) begin_run(number);  // it starts over
  }
  Steps& steps = run().steps;
  if (s.bar && steps.seen > 0 && !steps.bar) return;  // printed steps tell more than a bar
  if (!s.bar && steps.bar) steps = {};
  steps.bar = s.bar;
  ++steps.seen;
  if (s.step) {
    // a bar shows what is done, from 0 on; a printed step is done when it is printed
    if (!steps.first) steps.first = s.bar ? 1 : *s.step;
    steps.last = std::max(steps.last.value_or(*s.step), *s.step);
  }
  if (s.planned) steps.planned = s.planned;
  if (steps.seen <= 3) return;
  const double x = static_cast<double>(s.step.value_or(steps.seen));
  if (s.milliseconds && *s.milliseconds > 0) {
    steps.milliseconds.add(x, *s.milliseconds);
    if (steps.milliseconds.count() == 8 || steps.milliseconds.count() % 128 == 0) steps.usual_ms = *steps.milliseconds.median();
    steps.total_ms += *s.milliseconds;
    if (steps.usual_ms > 0 && *s.milliseconds > 1.5 * steps.usual_ms) steps.stalled_ms += *s.milliseconds - steps.usual_ms;
  }
  if (s.tokens_per_second) steps.tokens_per_second.add(x, *s.tokens_per_second);
  if (s.mfu) steps.mfu.add(x, *s.mfu);
}

void LogScanner::memory(std::string_view text) {
  const auto reading = read_memory(text);
  if (!reading || reading->label == "peak memory usage") return;
  auto found = std::ranges::find(run().memory, reading->label, &MemorySeries::label);
  if (found == run().memory.end()) {
    if (run().memory.size() >= kMostSeries) return;
    run().memory.push_back({reading->label, {}, std::nullopt});
    found = run().memory.end() - 1;
  }
  if (reading->total) found->total = reading->total->bytes;
  const double x = run().steps.last ? static_cast<double>(*run().steps.last) : static_cast<double>(found->used.count());
  found->used.add(x, static_cast<double>(reading->used.bytes.count));
}

}  // namespace dryfit

// watch's frame: panels of layout() filled with text. Every line is built from pieces and cut to its box, so nothing leaves the screen.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "report/screen.hpp"
#include "report/speed.hpp"
#include "report/watch.hpp"

namespace dryfit {

namespace {

using enum WatchPanel;

constexpr std::size_t kMostFindings = 4, kMostProcessRows = 7, kMostNotes = 3, kMostWrapped = 2;
constexpr const char *kDim = "90", *kBold = "1", *kGreen = "32", *kYellow = "33", *kRed = "31;1", *kBlue = "34", *kCyan = "36";

// One line: pieces of text with a colour each, counted in columns. All text is plain_text or our own, one column a character.
class LineText {
 public:
  LineText& add(std::string text, const char* colour = "") {
    width_ += columns(text);
    if (!pieces_.empty() && std::string_view(pieces_.back().second) == colour) pieces_.back().first += text;
    else pieces_.push_back({std::move(text), colour});
    return *this;
  }
  int width() const { return width_; }
  // The first `most` columns of another line, after what is here.
  LineText& join(const LineText& other, int most) {
    for (const auto& [text, code] : other.pieces_) {
      const std::string cut = first_columns(text, std::max(0, most));
      most -= columns(cut);
      if (!cut.empty()) add(cut, code);
    }
    return *this;
  }
  LineText& pad_to(int column) { return column > width_ ? add(std::string(static_cast<std::size_t>(column - width_), ' ')) : *this; }

  std::string rendered(int most, bool colour) const {
    std::string out;
    for (const auto& [text, code] : pieces_) {
      if (most <= 0) break;
      const std::string cut = first_columns(text, most);
      most -= columns(cut);
      out += colour && code[0] != '\0' ? "\x1b[" + std::string(code) + "m" + cut + "\x1b[0m" : cut;
    }
    out.erase(out.find_last_not_of(' ') + 1);
    return out;
  }

  static int columns(std::string_view text) {
    return static_cast<int>(std::ranges::count_if(text, [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
  }
  static std::string first_columns(std::string_view text, int n) {
    std::size_t i = 0;
    for (; i < text.size(); ++i) {
      if ((static_cast<unsigned char>(text[i]) & 0xC0) != 0x80 && n-- == 0) break;
    }
    return std::string(text.substr(0, i));
  }

 private:
  std::vector<std::pair<std::string, const char*>> pieces_;
  int width_ = 0;
};

std::string gib_number(Bytes b) { return fmt::format("{:.1f}", b.gib()); }
std::string signed_gib(Bytes b) { return (b < Bytes(0) ? "-" : "+") + gib_text(b < Bytes(0) ? -b : b); }

std::string repeated(std::string_view piece, int n) {
  std::string out;
  for (int i = 0; i < n; ++i) out += piece;
  return out;
}

// The smallest round number of GiB that is at least `bytes`.
double row_unit(double bytes) {
  double power = 1 << 30;
  while (power * 10 <= bytes) power *= 10;
  while (power > bytes && power > 1024) power /= 10;
  for (double step : {1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0}) {
    if (power * step >= bytes) return power * step;
  }
  return power * 10;
}

const char* separator(const Style& s) { return s.ascii ? " - " : " · "; }

class Drawing {
 public:
  Drawing(const WatchView& view, const Style& style) : v_(view), h_(*view.history), s_(style) { choose_gpus(); }

  WatchNeeds needs(int width) const {
    WatchNeeds n;
    n.gpus = std::max(1, static_cast<int>(shown_.size()) + (tells_of_more() ? 1 : 0));
    n.findings = static_cast<int>(finding_lines(width).size());
    n.progress = v_.log != nullptr ? 1 : 0;
    n.processes = v_.tree.empty() ? 0 : static_cast<int>(std::min(v_.tree.size() + 1, kMostProcessRows));
    n.notes = static_cast<int>(note_lines(width).size());
    n.footer = v_.footer.empty() ? 0 : 1;
    n.graph = plotted() != nullptr && plotted()->buckets().size() >= 2;
    return n;
  }

  std::vector<LineText> panel(const PanelBox& box) const {
    switch (box.panel) {
      case title: return {title_line(box.width)};
      case gpus: return gpu_lines(box);
      case verdict: return {verdict_line()};
      case findings: return finding_lines(box.width);
      case graph: return graph_lines(box);
      case progress: return {progress_line(box.width)};
      case processes: return process_lines(box);
      case notes: return note_lines(box.width);
      case footer: return {LineText().add(" " + v_.footer, kDim)};
    }
    return {};
  }

 private:
  // ---- which GPUs get a line: the job's; of many that are alike, two
  void choose_gpus() {
    const auto used = job_gpus(h_);
    const bool job = std::ranges::any_of(h_.gpus, &GpuHistory::in_job);
    for (std::size_t i = 0; i < h_.gpus.size(); ++i) {
      if (!job || std::ranges::find(used, i) != used.end()) shown_.push_back(i);
      else hidden_.push_back(i);
    }
    Bytes low(Bytes::kMax), high(0);
    bool alike = shown_.size() > 4;
    for (std::size_t i : shown_) {
      const GpuHistory& g = h_.gpus[i];
      alike = alike && !g.now.lost && g.now.used && g.now.name == h_.gpus[shown_[0]].now.name;
      if (g.now.used) low = std::min(low, *g.now.used), high = std::max(high, *g.now.used);
    }
    if (!alike || static_cast<double>((high - low).count) > 0.02 * static_cast<double>(std::max<std::int64_t>(high.count, 1))) return;
    spread_ = high - low;
    more_alike_ = shown_.size() - 2;
    shown_.resize(2);
  }

  bool tells_of_more() const { return more_alike_ > 0 || !hidden_.empty(); }

  // ---- title
  LineText title_line(int width) const {
    LineText line;
    line.add(width < 14 ? "dryfit watch" : " dryfit watch", kBold);
    if (!v_.mode.empty()) line.add(separator(s_) + v_.mode, v_.mode == "ended" ? kYellow : kCyan);
    if (!v_.title.empty()) line.add(separator(s_) + plain_text(v_.title, 200));
    const std::string clock = duration_text(h_.now - h_.first);
    if (line.width() + LineText::columns(clock) + 3 <= width) line.pad_to(width - LineText::columns(clock) - 1).add(clock, kDim);
    return line;
  }

  // ---- GPUs
  void bar(const GpuHistory& g, int room, LineText& line) const {
    const double usable = static_cast<double>(std::max<std::int64_t>(1, g.now.usable().value_or(g.now.used.value_or(Bytes(1))).count));
    const auto columns = [&](Bytes b) { return static_cast<double>(std::max<std::int64_t>(0, b.count)) / usable * room; };
    const Bytes used = g.now.used.value_or(Bytes(0));
    const Bytes own = g.job ? std::min(*g.job, used) : used;
    const double full = std::min<double>(room, columns(used)), mine = std::min(full, columns(own));
    const int mark = v_.prediction != nullptr && (g.in_job || !any_in_job()) ? std::min(room - 1, static_cast<int>(columns(v_.prediction->process.bytes))) : -1;
    const double share = static_cast<double>(used.count) / usable;
    const char* colour = share > 0.95 ? kRed : share > 0.85 ? kYellow : kGreen;
    line.add(s_.ascii ? "[" : "▕", kDim);
    for (int i = 0; i < room; ++i) {
      static constexpr const char* kEighths[] = {" ", "▏", "▎", "▍", "▌", "▋", "▊", "▉", "█"};
      const double part = std::clamp(full - i, 0.0, 1.0);
      std::string cell = s_.ascii ? (part >= 0.5 ? "#" : ".") : kEighths[static_cast<int>(part * 8)];
      const char* paint = i < mine ? colour : kBlue;
      if (i == mark) cell = s_.ascii ? "|" : "┃", paint = kBold;
      line.add(cell, paint);
    }
    line.add(s_.ascii ? "]" : "▏", kDim);
  }

  bool any_in_job() const { return std::ranges::any_of(h_.gpus, &GpuHistory::in_job); }

  LineText gpu_line(const GpuHistory& g, int width) const {
    LineText line;
    line.add(fmt::format(" {} {:<2} ", g.now.mig ? "MIG" : "GPU", g.now.index));
    if (g.now.lost) return line.add("lost: it no longer answers (dmesg tells an Xid)", kRed);
    const std::string memory = fmt::format(" {:>5} / {} GiB", g.now.used ? gib_number(*g.now.used) : "?", g.now.usable() ? gib_number(*g.now.usable()) : "?");
    std::vector<std::string> extra;
    if (g.now.utilization) extra.push_back(fmt::format("{:>4.0f} %", *g.now.utilization * 100));
    if (g.now.power_watts) extra.push_back(fmt::format("{:>4.0f} W", *g.now.power_watts));
    if (g.others > Bytes(0)) extra.push_back("others " + gib_text(g.others));
    if (g.now.temperature_c) extra.push_back(fmt::format("{:.0f} C", *g.now.temperature_c));
    if (!any_in_job() || width > 100) extra.push_back(plain_text(g.now.name, 40));
    constexpr int kLeastBar = 10, kMostBar = 60;
    int room = width - line.width() - LineText::columns(memory) - 2, rest = 0;
    std::size_t fits = 0;
    while (fits < extra.size() && room - rest - LineText::columns(extra[fits]) - 2 >= kLeastBar) rest += LineText::columns(extra[fits++]) + 2;
    if (room >= 4 && g.now.used) bar(g, std::clamp(room - rest, 4, kMostBar), line);
    line.add(memory, kBold);
    for (std::size_t i = 0; i < fits; ++i) line.add("  " + extra[i], extra[i].starts_with("others") ? kBlue : "");
    return line;
  }

  std::vector<LineText> gpu_lines(const PanelBox& box) const {
    std::vector<LineText> out;
    if (h_.gpus.empty()) return {LineText().add(" waiting for the first sample", kDim)};
    const int whole = static_cast<int>(shown_.size()) + (tells_of_more() ? 1 : 0);
    const bool cut = box.height < whole;
    const std::size_t lines = std::min(shown_.size(), static_cast<std::size_t>(cut ? std::max(1, box.height - 1) : box.height));
    for (std::size_t i = 0; i < lines; ++i) out.push_back(gpu_line(h_.gpus[shown_[i]], box.width));
    if (static_cast<int>(out.size()) >= box.height) return out;
    const std::size_t unshown = shown_.size() - lines;
    if (more_alike_ > 0) out.push_back(LineText().add(fmt::format("        {} {} more, all within {}", s_.ascii ? "..." : "…", more_alike_ + unshown, gib_text(spread_)), kDim).add(others_text(), kBlue));
    else if (unshown > 0) out.push_back(LineText().add(fmt::format("        {} {} more", s_.ascii ? "..." : "…", unshown + hidden_.size()), kDim));
    else if (!hidden_.empty()) out.push_back(LineText().add(fmt::format("        {} other GPU{} not in this job", hidden_.size(), hidden_.size() == 1 ? "" : "s"), kDim));
    return out;
  }

  // Of GPUs without a line: where others hold the most.
  std::string others_text() const {
    const GpuHistory* most = nullptr;
    for (std::size_t i : job_gpus(h_)) {
      const GpuHistory& g = h_.gpus[i];
      if (g.others > Bytes(0) && std::ranges::find(shown_, i) == shown_.end() && (most == nullptr || g.others > most->others)) most = &g;
    }
    return most == nullptr ? "" : fmt::format(", others hold {} on GPU {}", gib_text(most->others), most->now.index);
  }

  // ---- prediction beside measurement. measured = predicted + unaccounted.
  LineText verdict_line() const {
    LineText line;
    if (v_.prediction == nullptr) return line.add(" no prediction: ", kDim).add(plain_text(v_.no_prediction, 200), kDim);
    const JobPrediction& p = *v_.prediction;
    const auto [measured, by_process] = measured_peak(h_);
    const Bytes now = predicted_by_now(p, v_.log);
    const bool above = measured > p.process.high, below = measured < p.process.low;
    const bool filling = below && now < p.process.bytes && v_.log != nullptr && v_.log->phase() != LogPhase::ended;
    line.add(above ? " above  " : filling ? " filling  " : below ? " below  " : " as predicted  ", above ? kYellow : below ? kDim : kGreen);
    line.add("predicted ").add(gib_text(p.process.bytes), kBold).add(fmt::format(" ({} to {})", gib_number(p.process.low), gib_number(p.process.high)), kDim);
    if (filling) line.add(fmt::format(", by now {}", gib_text(now)), kDim);
    line.add(by_process ? "  measured " : "  measured on the whole card ").add(gib_number(measured), kBold);
    return line.add("  unaccounted ").add(signed_gib(measured - p.process.bytes), kBold);
  }

  // ---- findings; the same on several GPUs is one line
  struct Group { Finding worst; std::vector<int> gpus; };
  std::vector<Group> groups() const {
    std::vector<Group> out;
    for (const Finding& f : v_.findings) {
      const auto same = std::ranges::find_if(out, [&](const Group& g) { return g.worst.kind == f.kind && g.worst.level == f.level; });
      if (same == out.end()) {
        out.push_back({f, {f.gpu}});
        continue;
      }
      same->gpus.push_back(f.gpu);
      if (f.share > same->worst.share || f.amount > same->worst.amount) same->worst = f;
    }
    return out;
  }

  // A head in colour, the text after it, wrapped between words under itself.
  static void wrapped(std::vector<LineText>& out, const std::string& head, const char* colour, std::string_view text, const char* text_colour, int width) {
    const int indent = LineText::columns(head), room = std::max(16, width - indent - 1);
    for (std::size_t line = 0; line < kMostWrapped && !text.empty(); ++line) {
      std::size_t end = std::min(text.size(), static_cast<std::size_t>(room));
      if (end < text.size() && line + 1 < kMostWrapped) {
        if (const std::size_t space = text.rfind(' ', end); space != std::string_view::npos && space > 0) end = space;
      } else {
        end = text.size();  // the last line is cut at the box
      }
      out.push_back(line == 0 ? LineText().add(head, colour) : LineText().add(std::string(static_cast<std::size_t>(indent), ' ')));
      out.back().add(std::string(text.substr(0, end)), text_colour);
      text.remove_prefix(end);
      while (text.starts_with(' ')) text.remove_prefix(1);
    }
  }

  std::vector<LineText> finding_lines(int width) const {
    std::vector<LineText> out;
    const auto all = groups();
    for (std::size_t i = 0; i < all.size() && i < kMostFindings; ++i) {
      const Group& g = all[i];
      const char* colour = g.worst.level == Level::alarm ? kRed : g.worst.level == Level::warning ? kYellow : kDim;
      std::string where;
      if (g.worst.gpu >= 0) where = g.gpus.size() == 1 ? fmt::format("GPU {}: ", g.worst.gpu) : fmt::format("{} GPUs, worst {}: ", g.gpus.size(), g.worst.gpu);
      wrapped(out, fmt::format(" {:<7} ", name_of(g.worst.level)), colour, where + finding_text(g.worst), "", width);
    }
    return out;
  }

  // ---- memory over time, as columns from the lowest to the highest value of their time, and the prediction as a line
  const ByteSeries* plotted() const {
    const ByteSeries* best = nullptr;
    Bytes most(-1);
    for (std::size_t i : job_gpus(h_)) {
      const ByteSeries& s = h_.gpus[i].job_series;
      const Bytes peak = s.highest(h_.first).value_or(Bytes(-1));
      if (peak > most) most = peak, best = &s;
    }
    return best;
  }

  std::vector<LineText> graph_lines(const PanelBox& box) const {
    const ByteSeries* series = plotted();
    constexpr int kLabel = 8;
    const int columns = box.width - kLabel - 1, rows = box.height - 1;
    if (series == nullptr || columns < 8 || rows < 2) return {};
    const double begin = h_.first, span = std::max(1.0, h_.now - h_.first);
    std::vector<std::optional<Bytes>> high(static_cast<std::size_t>(columns));
    std::optional<Bytes> last;
    for (int c = 0; c < columns; ++c) {
      const double from = begin + span * c / columns, to = begin + span * (c + 1) / columns;
      std::optional<Bytes> here;
      for (const ByteSeries::Bucket& b : series->buckets()) {
        if (b.last < from || b.first > to) continue;
        here = std::max(here.value_or(Bytes(0)), b.high);
      }
      if (here) last = here;
      high[static_cast<std::size_t>(c)] = here ? here : last;
    }
    Bytes top = series->highest(h_.first).value_or(Bytes(1));
    if (v_.prediction != nullptr) top = std::max(top, v_.prediction->process.bytes);
    const double unit = row_unit(static_cast<double>(top.count) / rows);
    const auto level = [&](Bytes b) { return static_cast<double>(b.count) / unit; };  // in rows
    const int predicted = v_.prediction != nullptr ? std::clamp(static_cast<int>(level(v_.prediction->process.bytes)), 0, rows - 1) : -1;
    std::vector<LineText> out;
    for (int r = rows - 1; r >= 0; --r) {
      LineText line;
      line.add(fmt::format("{:>5.1f} {} ", std::min(unit * (r + 1) / (1 << 30), 99999.0), s_.ascii ? "|" : "┤"), kDim);
      for (int c = 0; c < columns; ++c) {
        static constexpr const char* kEighths[] = {" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
        const auto& value = high[static_cast<std::size_t>(c)];
        const double part = value ? std::clamp(level(*value) - r, 0.0, 1.0) : 0;
        const bool line_here = r == predicted;
        if (s_.ascii) line.add(part >= 0.5 ? "#" : line_here ? "-" : " ", part >= 0.5 ? kGreen : kBold);
        else if (part < 0.125) line.add(line_here ? "─" : " ", kBold);
        else line.add(line_here && part > 0.9 ? "▓" : kEighths[static_cast<int>(part * 8)], kGreen);
      }
      out.push_back(std::move(line));
    }
    LineText axis;
    axis.add(fmt::format("  GiB {} ", s_.ascii ? "+" : "┼"), kDim);
    const std::string left = "last " + duration_text(h_.now - h_.first), right = v_.prediction != nullptr ? (s_.ascii ? "- predicted" : "─ predicted") : "";
    axis.add(left, kDim);
    if (!right.empty() && axis.width() + LineText::columns(right) + 2 < box.width) axis.pad_to(box.width - LineText::columns(right) - 1).add(right, kDim);
    out.push_back(std::move(axis));
    return out;
  }

  // ---- what the log says
  LineText progress_line(int width) const {
    const LogRun& log = *v_.log;
    LineText line;
    line.add(" ");
    if (!log.last) return line.add(std::string(name_of(log.phase()))).add(log.phase() == LogPhase::first_step ? ": compiling takes minutes" : ": no step in the log yet", kDim);
    const LogStep& s = *log.last;
    line.add(fmt::format("step {}{}", s.step, s.of ? fmt::format("/{}", *s.of) : ""), kBold);
    const auto more = [&](const std::string& text, const char* colour = "") { line.add(separator(s_), kDim).add(text, colour); };
    if (log.phase() == LogPhase::ended) more(fmt::format("ended, peak allocated {:.2f} MiB", log.peak_allocated->mib()), kGreen);
    if (s.tokens_per_second) {
      more(rate_text(*s.tokens_per_second));
      if (v_.prediction != nullptr && v_.prediction->speed) line.add(fmt::format(" ({:+.0f} % of earlier runs)", (*s.tokens_per_second / v_.prediction->speed->tokens_per_second - 1) * 100), kDim);
    }
    if (s.mfu) more(fmt::format("mfu {:.0f} %", *s.mfu * 100));
    if (s.loss) more(fmt::format("loss {:.3f}", *s.loss));
    std::optional<double> eta = s.eta_seconds;
    if (!eta && s.of && s.seconds) eta = static_cast<double>(*s.of - s.step) * *s.seconds;
    if (eta && log.phase() == LogPhase::training) more("eta " + duration_text(*eta));
    if (v_.prediction != nullptr && !v_.prediction->speed && v_.prediction->tokens_per_second && s.tokens_per_second) {
      const std::string modelled = "modelled " + rate_text(*v_.prediction->tokens_per_second);
      if (line.width() + 3 + static_cast<int>(modelled.size()) <= width) more(modelled, kDim);  // cut short it would be another number
    }
    return line;
  }

  std::vector<LineText> process_lines(const PanelBox& box) const {
    std::vector<LineText> out;
    out.push_back(LineText().add(fmt::format(" {:>8}  {:>10}  {:>10}  {:>5}  {}", "pid", "GPU", "host", "cores", "process"), kDim));
    std::map<std::int64_t, int> depth;
    for (std::size_t i = 0; i < v_.tree.size() && static_cast<int>(out.size()) < box.height; ++i) {
      const ProcessSample& p = v_.tree[i];
      depth[p.pid] = depth.contains(p.parent) ? depth[p.parent] + 1 : 0;
      if (static_cast<int>(out.size()) + 1 == box.height && i + 1 < v_.tree.size()) {
        out.push_back(LineText().add(fmt::format(" {} {} more", s_.ascii ? "..." : "…", v_.tree.size() - i), kDim));
        break;
      }
      std::optional<Bytes> gpu;
      for (const GpuHistory& g : h_.gpus) {
        if (!g.now.processes) continue;
        for (const GpuProcess& q : *g.now.processes) {
          if (q.pid == p.pid && q.used) gpu = gpu.value_or(Bytes(0)) + *q.used;
        }
      }
      const int indent = std::min(depth[p.pid], 6) * 2;
      out.push_back(LineText().add(fmt::format(" {:>8}  {:>10}  {:>10}  {:>5}  {}{}", p.pid, gpu ? gib_text(*gpu) : "-", p.resident ? gib_text(*p.resident) : "?", p.cpu ? fmt::format("{:.1f}", *p.cpu) : "",
                                               repeated(" ", indent), plain_text(p.name, 40))));
    }
    return out;
  }

  std::vector<LineText> note_lines(int width) const {
    std::vector<LineText> out;
    for (std::size_t i = 0; i < v_.notes.size() && i < kMostNotes; ++i) wrapped(out, " note: ", kDim, plain_text(v_.notes[i], 400), kDim, width);
    return out;
  }

  const WatchView& v_;
  const History& h_;
  Style s_;
  std::vector<std::size_t> shown_, hidden_;
  std::size_t more_alike_ = 0;
  Bytes spread_;
};

}  // namespace

std::string plain_text(std::string_view text, std::size_t most) {
  std::string out;
  for (char c : text.substr(0, most)) out += c >= ' ' && c <= '~' ? c : '?';
  return out;
}

std::string finding_text(const Finding& f) {
  const std::string full = f.seconds ? ", full in " + duration_text(*f.seconds) : "";
  switch (f.kind) {
    case FindingKind::near_full: return fmt::format("{:.0f} % full, {} free{}", f.share * 100, gib_text(f.amount), f.seconds ? full + " at this slope" : ", not growing");
    case FindingKind::out_soon: return fmt::format("growing fast, {} free{} at this slope", gib_text(f.amount), full);
    case FindingKind::above_prediction: return fmt::format("{} above the predicted range: other flags, another version, or memory the prediction does not know", gib_text(f.amount));
    case FindingKind::below_prediction: return fmt::format("{} below the predicted range: is --nanochat VERSION the one that runs?", gib_text(f.amount));
    case FindingKind::leak: return fmt::format("grows steadily, {} an hour{}: a leak?", gib_text(f.amount), full);
    case FindingKind::gpu_lost: return "lost, it no longer answers: look for Xid in dmesg";
    case FindingKind::slowed: {
      std::string reasons;
      for (std::string_view r : throttle_names(f.reasons)) reasons += (reasons.empty() ? "" : ", ") + std::string(r);
      return "slowed down by the hardware: " + reasons;
    }
    case FindingKind::wont_fit: return fmt::format("predicted not to fit: over by {}", gib_text(f.amount));
  }
  return "";
}

int watch_rows(const WatchView& view, int width) {
  const WatchNeeds n = Drawing(view, {}).needs(width);
  return 1 + n.gpus + n.verdict + n.findings + n.progress + n.processes + n.notes + n.footer + (n.graph ? 12 : 0);
}

std::vector<std::string> watch_frame(const WatchView& view, int width, int height, const Style& style) {
  width = std::max(1, width);
  height = std::max(1, height);
  const Drawing drawing(view, style);
  std::vector<LineText> lines(static_cast<std::size_t>(height));
  std::size_t used = 1;
  for (const PanelBox& box : layout(drawing.needs(width), width, height)) {
    const auto content = drawing.panel(box);
    for (std::size_t i = 0; i < content.size() && static_cast<int>(i) < box.height; ++i) {
      lines[static_cast<std::size_t>(box.y) + i].pad_to(box.x).join(content[i], box.width);
      used = std::max(used, static_cast<std::size_t>(box.y) + i + 1);
    }
  }
  std::vector<std::string> out;
  for (std::size_t i = 0; i < used; ++i) out.push_back(lines[i].rendered(width, style.colour));
  return out;
}

}  // namespace dryfit

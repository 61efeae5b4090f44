// See snapshot_sites.hpp. Frames come innermost first; C++ frames, where recorded, have no Python file.
#include "doctor/snapshot_sites.hpp"

#include <algorithm>
#include <optional>

namespace dryfit {

namespace {

bool has(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

// How much a C++ frame tells where no Python is in the stack: the node of autograd, then the operator.
int told_by(std::string_view function) {
  if (has(function, "Backward") && has(function, "::apply")) return 3;
  if (has(function, "AccumulateGrad")) return 3;
  return has(function, "at::native::") ? 2 : has(function, "unwind") || has(function, "gather") || function.empty() || function == "??" ? 0 : 1;
}

struct FrameFacts {
  bool python = false, torch = false, compiled = false, accumulates = false, workspace = false, moves_model = false;
  int told = 0;                                // of a C++ frame
  FramePlace place;
};

FrameFacts facts_of(const StackFrame& f) {
  FrameFacts out;
  out.python = f.file.ends_with(".py") || f.file.starts_with("<ipython") || f.file.starts_with("<stdin") || f.file.starts_with("<string") || has(f.file, "ipykernel");
  if (!out.python) {
    out.told = told_by(f.function);
    out.accumulates = has(f.function, "AccumulateGrad");
    out.workspace = has(f.function, "CUDABlasHandle") || has(f.function, "WorkspaceSize") || has(f.function, "getNewWorkspace");
    if (has(f.function, "autograd::Engine") || out.accumulates) out.place = {Phase::unknown, Part::backward, 50};
    return out;
  }
  out.compiled = has(f.file, "torchinductor") || has(f.file, "inductor_cache");
  out.torch = !out.compiled && (has(f.file, "/torch/") || f.file.starts_with("torch/") || has(f.file, "\\torch\\") || has(f.file, "/triton/") || has(f.file, "/runpy.py") ||
                                  has(f.file, "/einops/") || has(f.file, "/jaxtyping/") || has(f.file, "/beartype/"));  // thin layers over torch say nothing either
  out.moves_model = out.torch && has(f.file, "nn/modules/module.py") && (f.function == "_apply" || f.function == "convert");
  Frame frame{std::string(f.file), std::string(f.function), {}, f.line};
  if (has(f.file, "torch/autograd/") && !has(f.function, "backward")) frame.file.clear();  // profilers, grad modes, a Function's forward
  out.place = place_of(frame);
  if (out.place.part == Part::compile && !out.torch) out.place = {};                       // a program's own "benchmark"
  return out;
}

StackPlace place_in(const Snapshot& s, std::uint32_t stack, const std::vector<FrameFacts>& facts) {
  StackPlace out;
  FramePlace training, elsewhere;
  std::optional<std::uint32_t> user, generated, python;
  std::uint32_t other = 0;
  int best_told = -1;
  const auto frames = s.stack(stack);
  for (const std::uint32_t number : frames) {
    const FrameFacts& f = facts[number];
    if (f.python && !python) python = number;
    if (!f.python && f.told > best_told) best_told = f.told, other = number;
    if (f.compiled && !generated) generated = number;
    if (f.python && !f.torch && !f.compiled && !user) user = number;
    out.accumulates = out.accumulates || f.accumulates;
    out.workspace = out.workspace || f.workspace;
    out.moves_model = out.moves_model || f.moves_model;
    out.compiled = out.compiled || f.compiled;
    FramePlace& best = f.place.phase == Phase::unknown ? training : elsewhere;
    if (f.place.rank > best.rank) best = f.place;
  }
  out.named = !frames.empty();
  if (out.named) out.site = user ? *user : generated ? *generated : python ? *python : best_told > 0 ? other : frames.front();
  out.phase = elsewhere.phase;
  out.part = elsewhere.rank > training.rank && elsewhere.part != Part::unknown ? elsewhere.part : training.part;
  if (out.part == Part::unknown && out.moves_model) out.part = Part::load;
  return out;
}

}  // namespace

StackPlaces::StackPlaces(const Snapshot& snapshot) {
  std::vector<FrameFacts> facts(snapshot.frames.size());
  for (std::uint32_t i = 0; i < snapshot.frames.size(); ++i) facts[i] = facts_of(snapshot.frame(i));
  places_.reserve(snapshot.stacks.size());
  for (std::uint32_t i = 0; i < snapshot.stacks.size(); ++i) places_.push_back(place_in(snapshot, i, facts));
}

std::string site_text(const Snapshot& snapshot, const StackPlace& place) {
  if (!place.named) return "(no frames)";
  const StackFrame f = snapshot.frame(place.site);
  std::string_view file = f.file;
  std::size_t slashes = 0;
  for (std::size_t i = file.size(); i-- > 0;) {
    if (file[i] != '/' && file[i] != '\\') continue;
    if (++slashes < 2) continue;
    file.remove_prefix(i + 1);
    break;
  }
  std::string out = printable(file, 80);
  if (f.line > 0) out += ":" + std::to_string(f.line);
  const std::size_t arguments = f.function.find('(', f.function.starts_with("(") ? 1 : 0);
  const std::string function = printable(f.file.ends_with(".py") ? f.function : f.function.substr(0, arguments), 80);
  return function.empty() ? out : out.empty() || out == "??" ? function : out + " " + function;
}

std::vector<Frame> python_frames(const Snapshot& snapshot, std::uint32_t stack, std::size_t most) {
  std::vector<Frame> out;
  for (const std::uint32_t number : snapshot.stack(stack)) {
    const StackFrame f = snapshot.frame(number);
    if (!f.file.ends_with(".py")) continue;
    out.push_back({printable(f.file, 400), printable(f.function, 120), {}, f.line});
    if (out.size() == most) break;
  }
  std::ranges::reverse(out);
  return out;
}

}  // namespace dryfit

// Lays the training step, the optimizer and what surrounds them end to end: load, resume, validation, first step, two steady steps,
// evaluations, sampling, checkpoint. Which of them a run meets: workload/scripts.cpp. Order and lifetimes: nanochat's scripts of the version.
#include "passes/program.hpp"

#include <algorithm>
#include <array>
#include <numeric>

#include "graph/nanochat.hpp"
#include "passes/evaluation.hpp"
#include "passes/program_layout.hpp"
#include "passes/training_program.hpp"

namespace dryfit {

ProgramLayout::ProgramLayout(const Workload& workload, const Target& target, bool accumulate)
    : w_(workload), m_(workload.model), run_(workload.run), target_(target), accumulate_(accumulate),
      step_(compile_step(nanochat_forward(workload, resolve_attention(workload, target)), workload.run.compile)) {
  p_.device_batch = run_.device_batch_size;
  p_.work = step_work(workload, step_);
  if (!run_.compile) eager_ = nanochat_eager_step(workload, graph(), resolve_attention(workload, target), target);
}

Program ProgramLayout::build() {
  add_graph_tensors();
  load();
  train();
  evaluate();
  // the state dict names what is there; torch.save copies one storage after another to the host
  if (meets(w_, RunPhase::checkpoint)) segment("checkpoint", "nothing is allocated: storages are copied to the host one by one", 0, Provenance::exact);
  return std::move(p_);
}

// Scripts evaluate before their first step and again later, when the optimizer has its state. On several GPUs what a step's works hold lives into the next ones, and those of the
// first step hold less: steps are alike once all sets that they find are whole.
void ProgramLayout::train() {
  const bool evaluates_first = run_.eval_every > 0 || trains_on_rows(w_) || !m_.version.minus_one_switches_off;  // -1 leaves chat_sft the validation of its last step
  if (meets(w_, RunPhase::validation) && evaluates_first) validation();
  if (meets(w_, RunPhase::rollout)) sampling("rollout", rollout_of(run_));
  if (meets(w_, RunPhase::first_step)) training_step("first_step");
  if (!meets(w_, RunPhase::train_step)) return;
  const int held = is_distributed(m_, run_) ? static_cast<int>(sets()) : 0;
  while (steps_ < 1 + held) training_step("train_step");
  const auto steady = static_cast<std::int32_t>(p_.events.size());
  const bool rolls_out = meets(w_, RunPhase::rollout) && run_.examples_per_step > run_.world_size;  // the second meets the cache the first left
  for (int step = 0; step < std::max(1, held); ++step) training_step("train_step", rolls_out);
  if (held > 0) p_.steady = steady_stretch(p_, steady, held);  // on one GPU a step hands nothing on: the next is the same, to the address
  const bool releases = run_.world_size > 1;  // alone, a rank evaluates without collectives
  if (p_.steady && releases && meets(w_, RunPhase::validation) && run_.eval_every > 0) p_.steady->between = run_.eval_every;
  if (meets(w_, RunPhase::validation)) validation();
  if (releases) release_stashes();
}

void ProgramLayout::evaluate() {
  if (meets(w_, RunPhase::core_evaluation)) core_evaluation();
  if (meets(w_, RunPhase::chat_evaluation)) chat_evaluation();
  if (meets(w_, RunPhase::sampling)) sampling("sampling", kBaseTrainSample);
}

// The collectives of an evaluation empty the shelf.
void ProgramLayout::release_stashes() {
  while (!stashes_.empty()) let_stash_go();
}

// CORE: the largest prompts that rank 0 meets.
void ProgramLayout::core_evaluation() {
  segment("core_evaluation", "forward");
  leave_fp8();
  const CorePrompts prompts = core_prompts(run_);
  append(core_forward(w_, resolve_attention(w_, target_), prompts.choices, std::min(prompts.middle, 10 * run_.max_seq_len)));
}

// ChatCORE: a batch of multiple-choice questions, padded to the longest, and only the logits of one position looked at.
void ProgramLayout::chat_evaluation() {
  segment("chat_evaluation", "forward", 0, Provenance::unknown);
  const ChatPrompts prompts = chat_prompts(w_);
  append(chat_forward(w_, resolve_attention(w_, target_), prompts.rows, prompts.middle));
}

void ProgramLayout::sampling(const char* phase, const Generation& generation) {
  segment(phase, "generate");
  leave_fp8();
  append(generate(w_, resolve_attention(w_, target_), generation));
}

void ProgramLayout::append(const EagerForward& forward) {
  make_once(workspaces_[0]);
  const auto first = static_cast<std::int32_t>(p_.tensors.size());
  p_.tensors.insert(p_.tensors.end(), forward.tensors.begin(), forward.tensors.end());
  for (Event e : forward.events) p_.events.push_back({e.kind, e.tensor + first, e.op + first});
}

std::string_view name_of(Category category) {
  static constexpr std::string_view kNames[] = {"weights", "gradients", "optimizer", "activations", "logits", "workspace", "communication", "context", "fragmentation"};
  return kNames[static_cast<std::size_t>(category)];
}

std::string_view name_of(Provenance provenance) {
  static constexpr std::string_view kNames[] = {"exact", "modelled", "calibrated", "unknown"};
  return kNames[static_cast<std::size_t>(provenance)];
}

std::string TensorInfo::name() const { return (layer >= 0 ? "h." + std::to_string(layer) + "." : std::string()) + role; }

const Segment& Program::segment_of(std::int32_t event) const {
  const auto after = std::ranges::upper_bound(segments, event, {}, &Segment::first_event);
  return *(after - 1);
}

std::int64_t HighWater::spare(const Program& program) {
  for (; counted_ < program.events.size(); ++counted_) {
    const Event& e = program.events[counted_];
    const std::int64_t bytes = round_up(program.tensors[static_cast<std::size_t>(e.tensor)].bytes, 512);
    alive_ += e.kind == Event::Kind::alloc ? bytes : -bytes;
    most_ = std::max(most_, alive_);
  }
  return most_ - alive_;
}

Bytes peak_of(std::span<const TensorInfo> tensors, std::span<const Event> events) {
  std::int64_t live = 0, peak = 0;
  for (const Event& e : events) {
    const std::int64_t bytes = round_up(tensors[static_cast<std::size_t>(e.tensor)].bytes, 512);
    live += e.kind == Event::Kind::alloc ? bytes : -bytes;
    peak = std::max(peak, live);
  }
  return Bytes(peak);
}

Attention resolve_attention(const Workload& workload, const Target& target) {
  const Run& run = workload.run;
  if (workload.transformers) return resolve_attention(workload.transformers->architecture, training_of(*workload.transformers, run), target);
  const bool half = run.compute != Dtype::fp32;
  if (run.attention == Attention::automatic) {
    const NanochatVersion& version = workload.model.version;
    const bool fa3 = version.flash_attention3 && (target.compute_major == 9 || (version.flash_attention3_ampere && target.compute_major == 8));
    if (fa3 && run.compute == Dtype::bf16) return Attention::fa3;
  } else if (run.attention != Attention::flash) {
    return run.attention;
  }
  // SDPA chooses
  if (half && !target.fake_tensors && prefers_cudnn(target, run.torch)) return Attention::cudnn;
  return half && target.compute_major >= 8 ? Attention::flash : Attention::efficient;  // masked layers fall to the efficient kernel one by one
}

namespace {

// What the events from first_event on find alive and let go, each with what they leave alive in its place; the latest allocated first.
std::optional<std::vector<std::array<std::int32_t, 2>>> handed_on(const Program& program, std::int32_t first_event) {
  const std::size_t begin = static_cast<std::size_t>(first_event), end = program.events.size();
  const auto info = [&](std::int32_t t) -> const TensorInfo& { return program.tensors[static_cast<std::size_t>(t)]; };
  // of each tensor its first and its last event among those
  constexpr std::uint8_t kNone = 0, kFreed = 1, kAllocated = 2;
  std::vector<std::array<std::uint8_t, 2>> met(program.tensors.size(), {kNone, kNone});
  const auto met_by = [&](std::int32_t t) -> std::array<std::uint8_t, 2>& { return met[static_cast<std::size_t>(t)]; };
  for (std::size_t i = begin; i < end; ++i) {
    auto& [first, last] = met_by(program.events[i].tensor);
    last = program.events[i].kind == Event::Kind::free ? kFreed : kAllocated;
    if (first == kNone) first = last;
  }
  std::vector<std::int32_t> found, left;
  for (std::size_t i = end; i-- > 0;) {
    const Event& e = program.events[i];
    auto& [first, last] = met_by(e.tensor);
    if (e.kind == Event::Kind::free || first == kNone || first != last) continue;
    if (i < begin && first == kFreed) found.push_back(e.tensor), first = kNone;
    if (i >= begin && first == kAllocated) left.push_back(e.tensor), first = kNone;
  }
  if (!std::ranges::equal(found, left, {}, info, info)) return std::nullopt;
  std::vector<std::array<std::int32_t, 2>> handed;
  for (std::size_t i = 0; i < found.size(); ++i) handed.push_back({found[i], left[i]});
  return handed;
}

}  // namespace

std::optional<Steady> steady_stretch(const Program& program, std::int32_t first_event, int steps) {
  auto handed = handed_on(program, first_event);
  if (!handed) return std::nullopt;
  return Steady{first_event, static_cast<std::int32_t>(program.events.size()), steps, 0, std::move(*handed)};
}

bool repeat_events(Program& program, std::int32_t first_event) {
  const std::size_t begin = static_cast<std::size_t>(first_event), end = program.events.size();
  const auto handed = handed_on(program, first_event);
  if (!handed) return false;
  std::vector<std::int32_t> as(program.tensors.size());
  std::iota(as.begin(), as.end(), 0);
  for (const auto& [found, left] : *handed) std::swap(as[static_cast<std::size_t>(found)], as[static_cast<std::size_t>(left)]);
  const auto again = [&](std::int32_t t) { return t < 0 ? t : as[static_cast<std::size_t>(t)]; };
  const auto shift = static_cast<std::int32_t>(end - begin);
  const auto segment = std::ranges::upper_bound(program.segments, first_event, {}, &Segment::first_event) - program.segments.begin() - 1;  // those of before may be empty
  for (std::size_t i = static_cast<std::size_t>(segment), n = program.segments.size(); i < n; ++i) {
    program.segments.push_back(program.segments[i]);
    program.segments.back().first_event += shift;
  }
  program.events.reserve(end + static_cast<std::size_t>(shift));
  for (std::size_t i = begin; i < end; ++i) {
    const Event e = program.events[i];
    program.events.push_back({e.kind, again(e.tensor), again(e.op), again(e.from)});
  }
  return true;
}

Program at_batch(Program program, std::int64_t device_batch) {
  for (TensorInfo& t : program.tensors) {
    if (t.batched) t.bytes = (t.bytes - t.fixed) / program.device_batch * device_batch + t.fixed;
    if (t.sorted_ids > 0) {
      const std::int64_t ids = t.sorted_ids * device_batch;
      t.bytes = t.fixed + (ids / 10 + (t.fixed > 0 ? 0 : ids)) * (t.shape.numel() / t.shape.dim[0]) * size_of(t.dtype);
    }
    if (t.summed_rows > 0) t.bytes = column_sum(t.summed_rows * device_batch, t.shape.dim[1], program.gpu).partials;
  }
  program.work = at_batch(std::move(program.work), device_batch);
  program.device_batch = device_batch;
  return program;
}

Program build_program(const Workload& workload, const Target& target, bool accumulate) { return ProgramLayout(workload, target, accumulate).build(); }

Result<Program> program_for(const Workload& workload, const Target& target, bool accumulate) {
  if (workload.transformers) return build_program(workload.transformers->architecture, training_of(*workload.transformers, workload.run), target);
  return build_program(workload, target, accumulate);
}

StaticBytes static_bytes(const Workload& workload) {
  if (workload.transformers) return static_bytes(workload.transformers->architecture, training_of(*workload.transformers, workload.run));
  StaticBytes total;
  for (const Parameter& p : workload.model.parameters) total.weights += p.bytes();
  total.gradients = total.weights;
  for (const StateTensor& s : optimizer_state(workload.model, workload.run)) total.optimizer += Bytes(s.elements) * size_of(s.dtype);
  return total;
}

StaticBytes static_bytes(const Program& program) {
  std::array<Bytes, kCategories> now{}, most{};
  for (const Event& e : program.events) {
    const TensorInfo& t = program.tensors[static_cast<std::size_t>(e.tensor)];
    const auto c = static_cast<std::size_t>(t.category);
    now[c] += e.kind == Event::Kind::alloc ? Bytes(t.bytes) : Bytes(-t.bytes);
    most[c] = std::max(most[c], now[c]);
  }
  const auto of = [&](Category c) { return most[static_cast<std::size_t>(c)]; };
  return {of(Category::weights), of(Category::gradients), of(Category::optimizer)};
}

}  // namespace dryfit

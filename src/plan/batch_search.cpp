// See batch_search.hpp.
#include "plan/batch_search.hpp"

#include <algorithm>

#include "memory/timeline.hpp"
#include "passes/training_program.hpp"

namespace dryfit {

namespace {

using Batches = std::span<const std::int64_t>;  // largest first

Result<Program> program_with(const Workload& w, const Target& target, const std::optional<StaticBytes>& fixed) {
  auto program = program_for(w, target, w.run.grad_accum_steps > 1);
  if (program) program->fixed = fixed ? *fixed : static_bytes(w);
  return program;
}

class BatchSearch {
 public:
  BatchSearch(const Workload& workload, const Machine& machine, const EstimateOptions& options, std::optional<StaticBytes> fixed, SharedLayouts* shared = nullptr)
      : w_(workload), machine_(machine), target_(target_of(machine)), options_(options), fixed_(fixed), shared_(shared), room_(most_that_may_fit(workload, machine, options)), above_(error_band(workload, true).above) {
    options_.alternatives = options_.timeline = options_.neighbours = false;
  }

  // Fewer micro-steps keep less between them: their batches, the largest, come first, and are asked on their own.
  Result<BatchFound> all(Batches batches) const {
    while (true) {
      const auto end = std::ranges::find_if(batches, [&](std::int64_t b) { return layout(b).micro_steps != layout(batches.front()).micro_steps; });
      const Batches alike(batches.begin(), end);
      auto found = of_steps(alike);
      if (!found || found->fits || alike.size() == batches.size()) return found;
      batches = batches.subspan(alike.size());
    }
  }

  Result<BatchFound> built(const Workload& w, bool only_if_it_fits = false) const {
    if (shared_ != nullptr) {
      const auto laid_out = shared_->of(w, target_, fixed_);
      if (!laid_out) return std::unexpected(laid_out.error());
      return answer(estimate_if_it_fits(w, machine_, options_, (*laid_out)->program));
    }
    auto program = program_of(w);
    if (!program) return std::unexpected(program.error());
    auto found = answer(only_if_it_fits ? estimate_if_it_fits(w, machine_, options_, *program) : estimate_program(w, machine_, options_, *program));
    if (found) found->program = std::move(*program);
    return found;
  }

  // Its own batch built; where that does not fit after all, smaller ones.
  Result<BatchFound> confirmed() const {
    const auto legal = legal_device_batches(w_);
    auto found = built(w_);
    for (auto at = std::ranges::find(legal, w_.run.device_batch_size); found && !found->fits && at + 1 != legal.end();) {
      auto smaller = built_if_it_fits(*++at);
      if (!smaller || smaller->fits) return smaller;
      if (at + 1 == legal.end()) return built(*with_device_batch(w_, *at));
    }
    return found;
  }

 private:
  struct Asked { std::optional<BatchFound> found; bool largest = false; std::shared_ptr<const SharedLayouts::LaidOut> laid_out; };  // laid_out: none where its program was used up

  TrainingLayout layout(std::int64_t batch) const {
    const auto& total = w_.transformers->total_batch_size;
    const std::int64_t ids = batch * rows_of_sample(w_) * w_.run.max_seq_len;
    const std::int64_t splits = attention_splits(w_.transformers->architecture, w_.transformers->training, target_, batch, w_.run.max_seq_len);
    const std::int64_t micro_steps = total ? *total / (ids * w_.run.world_size) : w_.run.grad_accum_steps;
    TrainingLayout out = layout_of(w_.transformers->architecture, batch, w_.run.max_seq_len, micro_steps, splits);
    if (auto rollouts = w_.transformers->training.rollouts) {
      rollouts->resolve(batch, w_.run.world_size, micro_steps);
      out.written_at_once = rollouts->steps, out.of_one_prompt = rollouts->alike;
    }
    return out;
  }
  Result<Program> program_of(const Workload& w) const { return program_with(w, target_, fixed_); }
  static Result<BatchFound> answer(Result<Report> report) {
    if (!report) return std::unexpected(report.error());
    return BatchFound{report->verdict == Verdict::fits, std::move(*report)};
  }
  Result<BatchFound> built_if_it_fits(std::int64_t batch) const { return built(*with_device_batch(w_, batch), true); }

  // Batches of one accumulation, by how an embedding's gradient is summed: from the middle way upwards while its largest fits, downwards while none does.
  Result<BatchFound> of_steps(Batches batches) const {
    if (shares_no_layout(w_.transformers->training)) return of_each(batches);
    std::vector<Batches> ways;
    for (Batches rest = batches; !rest.empty(); rest = rest.subspan(ways.back().size())) {
      ways.emplace_back(rest.begin(), std::ranges::find_if(rest, [&](std::int64_t b) { return layout(b) != layout(rest.front()); }));
    }
    std::size_t i = 0;
    while (i + 1 < ways.size() && layout(ways[i].front()).ids == TrainingLayout::Ids::more_than_rows) ++i;
    if (roughly(ways[i].back()) > static_cast<double>(room_.count)) i = ways.size() - 1;  // likely nothing will: only the smallest is told
    auto asked = of_way(ways[i]);
    while (asked && !asked->found && i + 1 < ways.size()) asked = of_way(ways[++i]);
    while (asked && asked->found && asked->largest && i > 0) {
      auto larger = of_way(ways[--i]);
      if (larger && !larger->found) break;
      asked = std::move(larger);
    }
    if (!asked) return std::unexpected(asked.error());
    if (asked->found) return std::move(*asked->found);
    if (!asked->laid_out) return built(*with_device_batch(w_, batches.back()));
    return answer((shared_ != nullptr ? estimate_if_it_fits : estimate_program)(*with_device_batch(w_, batches.back()), machine_, options_, asked->laid_out->program));
  }

  // What lives through the run and what blocks keep for backward, some 24 bytes of each element or what a checkpoint is given: where the search begins depends on it, not what it finds.
  double roughly(std::int64_t batch) const {
    const Architecture& a = w_.transformers->architecture;
    const StaticBytes fixed = fixed_ ? *fixed_ : static_bytes(w_);
    const double kept = w_.transformers->training.recompute == Recompute::none ? 24 : 2;
    return static_cast<double>((fixed.weights + fixed.gradients + fixed.optimizer).count) + kept * static_cast<double>(batch) * static_cast<double>(w_.run.max_seq_len) * static_cast<double>(a.width * a.layers);
  }

  // A loss without all logits cuts each batch into parts of its own size; torch.compile decides for each what it keeps; packed, a batch is one long row.
  static bool shares_no_layout(const Training& t) { return t.head != HeadLoss::logits || t.compile || t.packed; }

  // Batches whose programs have nothing in common, by bisection on programs of their own.
  Result<BatchFound> of_each(Batches batches) const {
    std::optional<BatchFound> largest;
    for (Batches rest = batches; !rest.empty();) {
      const std::size_t middle = rest.size() / 2;
      auto found = built_if_it_fits(rest[middle]);
      if (!found) return found;
      rest = found->fits ? rest.first(middle) : rest.subspan(middle + 1);
      if (found->fits) largest = std::move(*found);
    }
    if (largest) return std::move(*largest);
    return built(*with_device_batch(w_, batches.back()));
  }

  // The program of the smallest of them, scaled. What its envelope says does not fit, does not; segments may need more than it says.
  Result<Asked> of_way(Batches batches) const {
    SharedLayouts own;
    const auto laid_out = (shared_ != nullptr ? *shared_ : own).of(*with_device_batch(w_, batches.back()), target_, fixed_);
    if (!laid_out) return std::unexpected(laid_out.error());
    const auto may = [&](std::int64_t b) { return static_cast<double>((*laid_out)->envelope.at(b).count) * (1 + above_) <= static_cast<double>(room_.count); };
    auto good = std::ranges::partition_point(batches, [&](std::int64_t b) { return !may(b); });
    Asked asked;
    asked.laid_out = *laid_out;
    if (good == batches.end()) return asked;
    Program scaled = shared_ != nullptr ? (*laid_out)->program : std::move((*laid_out)->program);
    if (shared_ == nullptr) asked.laid_out.reset();
    const auto does = [&](std::int64_t b) {
      scaled = at_batch(std::move(scaled), b);
      auto found = answer(estimate_if_it_fits(*with_device_batch(w_, b), machine_, options_, scaled));
      if (!found || !found->fits) return false;
      asked.found = std::move(*found);
      return true;
    };
    if (!does(*good)) {
      auto bad = good;
      good = batches.end();
      while (good - bad > 1) {
        const auto middle = bad + (good - bad) / 2;
        (does(*middle) ? good : bad) = middle;
      }
    }
    asked.largest = good == batches.begin();
    return asked;
  }

  const Workload& w_;
  const Machine& machine_;
  Target target_;
  EstimateOptions options_;
  std::optional<StaticBytes> fixed_;
  SharedLayouts* shared_;
  Bytes room_;
  double above_;
};

}  // namespace

SharedLayouts::Answer SharedLayouts::of(const Workload& w, const Target& target, const std::optional<StaticBytes>& fixed) {
  for (const Known& k : known_) {
    if (k.device_batch == w.run.device_batch_size && k.grad_accum_steps == w.run.grad_accum_steps) return k.laid_out;
  }
  auto program = program_with(w, target, fixed);
  Answer answer;
  if (!program) {
    answer = std::unexpected(program.error());
  } else {
    Envelope envelope = make_envelope(*program);
    answer = std::make_shared<LaidOut>(LaidOut{std::move(*program), std::move(envelope)});
  }
  known_.push_back({w.run.device_batch_size, w.run.grad_accum_steps, answer});
  return answer;
}

Result<BatchFound> search_device_batch(const Workload& workload, const Machine& machine, const EstimateOptions& options, SearchOf of) {
  const BatchSearch search(workload, machine, options, of.fixed, of.shared);
  if (of.own_batch) return search.built(workload);
  const auto legal = legal_device_batches(workload);
  return search.all(legal);
}

Result<BatchFound> confirm_device_batch(BatchFound found, const Machine& machine, const EstimateOptions& options) {
  const Report& r = found.report;
  const Workload workload = r.workload;
  return BatchSearch(workload, machine, options, StaticBytes{r.weights, r.gradients, r.optimizer}).confirmed();
}

}  // namespace dryfit

// See trainer_evaluation.hpp. B evaluation batch, T length, V vocabulary.
#include "passes/trainer_evaluation.hpp"

#include <algorithm>
#include <array>
#include <utility>

namespace dryfit::eager {

namespace {

constexpr const char* kPhase = "validation";
constexpr std::int64_t kMostBatches = 4096;  // that what is kept is counted for

// A training's model in evaluation mode: no dropout, no checkpoints. Liger-Kernel's loss is asked for by Trainer of transformers 5 alone, where it put the kernels in itself and wants nothing
// but the loss (skip_logits); others' heads look at the labels.
Training evaluated(const Training& computes, const EvaluationRun& e) {
  Training out = computes;
  out.dropout = false;
  out.recompute = Recompute::none;
  if (out.head == HeadLoss::liger && !(out.is_transformers_5() && !out.liger.in_classes && e.keeps == EvaluationRun::Keeps::loss)) out.head = HeadLoss::logits;
  return out;
}

class EvaluationLoop {
 public:
  EvaluationLoop(Tape& tape, const Architecture& a, const Training& r, const Training& computes, Transformer& model)
      : t_(tape), a_(a), r_(r), e_(*r.evaluation), computes_(computes), model_(model), batch_(e_.batch_size), keeps_logits_(e_.keeps != EvaluationRun::Keeps::loss) {}

  // In full the first two batches and the last; of those between what they add to what is kept. A loss a batch is not worth counting them for.
  void run() {
    const std::int64_t count = std::clamp<std::int64_t>(e_.batches.value_or(2), 1, keeps_logits_ ? kMostBatches : 3);
    const std::int64_t until_host = e_.accumulation.value_or(count + 1);
    const std::int64_t last = std::min(count, std::max<std::int64_t>(until_host, 2));  // from then on it begins anew
    for (std::int64_t i = 1; i <= last; ++i) {
      if (i <= 2 || i == last) step(static_cast<int>(i));
      else keep(losses_, 0), keep(choices_, 1), keep(labels_, 2), keep(ends_, 3);
      if (i % until_host == 0) let_go();
    }
    let_go();
  }

 private:
  Tensor rows(const char* role, Dtype dtype) {
    const std::int64_t rows = r_.packed ? 1 : batch_;
    return t_.empty(role, dims({rows, batch_ * r_.seq_len / rows}, true), dtype);
  }
  Tensor ids() { return rows("batch.ids", Dtype::int64); }
  Tensor scalar(const char* role, Dtype dtype) { return t_.empty(role, dims({}, false), dtype); }

  void step(int i) {
    t_.segment(kPhase, "data", i, Provenance::exact);
    t_.category(Category::workspace);
    Transformer::Batch batch = a_.classifies() ? Transformer::batch_of_classes(t_, a_, batch_, r_.seq_len, !finds_answers()) : Transformer::Batch{ids(), ids(), ids(), {}};
    inputs_ = std::move(batch);
    t_.segment(kPhase, "forward", i);
    t_.category(Category::activations);
    {
      Tensor loss, logits, ends;
      predict(loss, logits, ends);
      t_.segment(kPhase, "gather", i);
      losses_ = std::move(loss), choices_ = std::move(logits), ends_ = std::move(ends), labels_ = keeps_logits_ ? inputs_.labels : Tensor();
    }
    if (!finds_answers()) {
      const Tensor repeated = t_.empty("loss", dims({batch_}, true), Dtype::fp32);
      losses_ = gathered(repeated);
    }
    keep(losses_, 0);
    if (!keeps_logits_) return;
    if (e_.keeps == EvaluationRun::Keeps::choices) choices_ = t_.empty("eval.choices", dims({choices_.dims().size[0], choices_.dims().size[1]}, true), Dtype::int64);
    choices_ = gathered(choices_);
    if (ends_.defined()) ends_ = gathered(ends_);
    keep(choices_, 1);
    keep(ends_, 3);
    if (!labels_.defined()) return;
    labels_ = gathered(labels_);
    keep(labels_, 2);
  }

  // run_qa.py's evaluation has no labels, and Trainer no loss.
  bool finds_answers() const { return a_.head == HeadKind::answers; }

  // accelerate's gather: one after the other of all GPUs.
  Tensor gathered(const Tensor& x) {
    if (r_.world_size == 1) return x;
    Dims d = contiguous(x.dims());
    d.size[0] *= r_.world_size;
    return t_.empty("eval.gathered", contiguous(d), x.dtype(), Category::communication);
  }

  // prediction_step: until it returns, everything that the model put out stays.
  void predict(Tensor& loss, Tensor& logits, Tensor& ends) {
    const bool trl = computes_.head == HeadLoss::trl;
    Tensor items;
    if (a_.causal && !trl && !a_.classifies()) {  // _get_num_items_in_batch
      const Tensor counted = rows("loss.counted", Dtype::bool8);
      items = scalar("loss.items", Dtype::int64);
    }
    if (const auto half = half_of(computes_.mixed)) t_.enter_autocast(*half);
    Transformer::Outputs outputs = model_.forward(inputs_);
    t_.leave_autocast();
    t_.category(Category::logits);
    if (r_.converts_outputs && outputs.logits.defined()) outputs.logits = t_.to(outputs.logits, Dtype::fp32, "logits");
    if (r_.converts_outputs && outputs.end_logits.defined()) outputs.end_logits = t_.to(outputs.end_logits, Dtype::fp32, "logits");
    loss = trl ? outputs.loss : finds_answers() ? Tensor() : scalar("loss", Dtype::fp32);
    if (keeps_logits_) logits = outputs.logits, ends = outputs.end_logits;
  }

  // EvalLoopContainer.add: what is there and what comes are joined.
  void keep(const Tensor& x, std::size_t which) {
    t_.category(Category::logits);
    Tensor& kept = kept_[which];
    if (x.defined()) kept = kept.defined() ? t_.cat(std::array{kept, x}, 0, "eval.kept") : x;
  }

  // All goes to the host, and its names.
  void let_go() {
    kept_ = {};
    losses_.reset(), choices_.reset(), labels_.reset(), ends_.reset();
    inputs_ = {};
  }

  Tape& t_;
  const Architecture& a_;
  const Training& r_;
  const EvaluationRun& e_;
  const Training& computes_;
  Transformer& model_;
  std::int64_t batch_;
  bool keeps_logits_;
  Transformer::Batch inputs_;
  Tensor losses_, choices_, labels_, ends_;  // the loop's names, until the next batch has been gone through
  std::array<Tensor, 4> kept_;         // all_losses, all_preds, all_labels; of all_preds the second, an answer's end
};

}  // namespace

void lay_out_evaluation(Tape& tape, const Architecture& a, const Training& r, Training& computes, Transformer& model) {
  const Training trains = std::exchange(computes, evaluated(computes, *r.evaluation));
  const Category before = tape.category();
  tape.sequences(r.sequences(r.evaluation->batch_size));
  tape.evaluates(true);
  EvaluationLoop(tape, a, r, computes, model).run();
  tape.evaluates(false);
  tape.category(before);
  tape.sequences(r.sequences(r.rows()));
  computes = trains;
}

}  // namespace dryfit::eager

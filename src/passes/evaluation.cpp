// CORE's batches as forward passes, scored as core_eval.py scores them. See evaluation.hpp.
#include "passes/evaluation.hpp"

#include <algorithm>

#include "base/embedded.hpp"
#include "base/text.hpp"

namespace dryfit {

namespace {

// cross_entropy keeps the dtype it is given for log_softmax; autocast then wants nll_loss in fp32.
void score(Inference& pass, const Model& m, Inference::Tensor logits, std::int64_t rows, std::int64_t length) {
  const std::int64_t tokens = rows * length;
  const auto targets = pass.make("core.targets", Dtype::int64, {rows, length});
  const Dtype d = pass.info(logits).dtype;
  const auto log_probs = pass.make("loss.log_softmax", d, {tokens, m.vocab}, Category::logits);
  const bool up = m.version.autocast && d != Dtype::fp32;
  const auto copy = up ? pass.make("loss.log_softmax_fp32", Dtype::fp32, {tokens, m.vocab}, Category::logits) : -1;
  const auto losses = pass.make("loss", Dtype::fp32, {tokens});
  if (up) pass.drop({copy});
  pass.drop({log_probs});
  const auto best = pass.make("core.argmax", Dtype::int64, {rows, length});
  pass.drop({best, losses, targets});
}

}  // namespace

CorePrompts core_prompts(const Run& run) {
  // rows stand in ascending numbers of GPUs, the small task first; other sizes take the next larger task
  const bool whole = run.core_metric_max_per_task < 1 || run.core_metric_max_per_task > 500;
  CorePrompts found{4, 2048, 2048, 2048};
  std::int64_t any_rank = 0;
  for (std::string_view line : split(embedded_core_prompts_csv, '\n')) {
    const auto fields = split(line, ',');
    if (fields.size() < 6 || !parse_int(fields[0], "")) continue;
    if ((*parse_int(fields[0], "") < 0) != whole) continue;
    const auto at = [&](std::size_t i) { return parse_int(fields[i], "").value_or(0); };
    any_rank = std::max(any_rank, at(5));
    if (at(1) <= run.world_size) found = {at(2), at(3), at(4), at(5)};
  }
  found.high = std::max(found.high, any_rank);
  return found;
}

EagerForward core_forward(const Workload& workload, Attention attention, std::int64_t rows, std::int64_t length) {
  Inference pass(workload, attention);
  const auto ids = pass.make("core.input_ids", Dtype::int64, {rows, length});
  pass.enter_autocast();
  const auto logits = pass.forward(rows, length);
  score(pass, workload.model, logits, rows, length);
  pass.drop({logits, ids});
  pass.leave_autocast();
  return pass.take();
}

// chat_sft of old takes twice its device batch there, later ones their device batch.
ChatPrompts chat_prompts(const Workload& workload) {
  const std::int64_t B = workload.run.device_batch_size;
  return {workload.model.version.sft == NanochatVersion::Sft::rows ? 2 * B : B, 256, 1024, 2048};
}

EagerForward chat_forward(const Workload& workload, Attention attention, std::int64_t rows, std::int64_t length) {
  Inference pass(workload, attention);
  pass.enter_autocast();
  Inference::Tensor ids = -1, logits = -1;
  for (int batch = 0; batch < 2; ++batch) {  // the logits of one are named until the next one's are there
    if (ids >= 0) pass.drop({ids});
    ids = pass.make("chat.input_ids", Dtype::int64, {rows, length});
    const Inference::Tensor now = pass.forward(rows, length);
    if (logits >= 0) pass.drop({logits});
    logits = now;
  }
  pass.drop({logits, ids});
  pass.leave_autocast();
  EagerForward forward = pass.take();
  mark_batched(forward, 0);
  return forward;
}

}  // namespace dryfit

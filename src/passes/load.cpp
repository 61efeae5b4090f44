// What is on the GPU before the first step: weights, made and filled or read from a checkpoint, buffers of the loader; and the tensors that
// later steps will make. Recorded: tests/golden/oracle (segment `load`, kind `resume`).
#include "passes/program_layout.hpp"

#include <cstring>

namespace dryfit {

// Tensor i stands for graph node i, so that events of the compiled step need no table.
void ProgramLayout::add_graph_tensors() {
  p_.tensors.reserve(2 * graph().nodes.size() + 4096);  // and the model as it is evaluated, steps and gradients
  add_tensors_of(graph());
  for (NodeId g : step_.gradients) {
    if (g != kNone) p_.tensors[static_cast<std::size_t>(g)].category = Category::gradients;
  }
  mark_gradient_logits();
}

void ProgramLayout::add_tensors_of(const Graph& of) {
  for (const Node& n : of.nodes) {
    Category category = Category::activations;
    if (std::strcmp(n.role, "logits") == 0 && n.kind == Kind::matmul && n.variant == 0) category = Category::logits;
    if (n.fn == Fn::input) category = Category::weights;
    p_.tensors[static_cast<std::size_t>(tensor(n.role, category, n.dtype, n.shape, n.layer))].bytes = n.bytes();
  }
}

// The gradient of the logits overwrites them: it is the same memory and belongs to the same row of the account.
void ProgramLayout::mark_gradient_logits() {
  for (const BufferStep& s : step_.backward) {
    const Node& n = node(s.node);
    if (n.backward && n.dtype != Dtype::fp32 && std::strcmp(n.role, "logits") == 0 && n.kind == Kind::pointwise && n.shape.batched &&
        n.shape.numel() >= node(graph().cross_entropy.logits).shape.numel()) {
      p_.tensors[static_cast<std::size_t>(s.node)].category = Category::logits;
    }
  }
}

void ProgramLayout::load() {
  segment("load", "weights", 0, Provenance::exact);
  const bool base = run_.script == Script::base_train, resumes = meets(w_, RunPhase::resume);
  const auto token_bytes = [&] { alloc(tensor("token_bytes", Category::workspace, Dtype::int32, shape({m_.vocab}, false))); };
  if (base) token_bytes();
  // a checkpoint is read onto the GPU while a model of the same size stands there, filled at random (checkpoint_manager.build_model)
  if (!base) read_weights();
  const std::vector<std::int32_t> first = init_model(!base || resumes);
  if (!base) let_go(first);
  if (resumes) {
    segment("resume", "weights", 0, Provenance::exact);
    read_weights();
  }
  make_later_tensors();
  if (resumes) {
    read_optimizer();
    let_go(first);
  }
  if (!base) {
    if (!trains_on_rows(w_)) token_bytes();  // which bits per byte are told with
    if (run_.script == Script::chat_sft && m_.version.sft == NanochatVersion::Sft::inherits && run_.load_optimizer) read_optimizer();
  }
  if (!trains_on_rows(w_)) loader();
}

// The model from GPTConfig: parameters in the order of its modules, then those of the model itself, rotary tables, and embeddings cast from
// fp32 once they are filled. Returns the parameters where they are not to stay.
std::vector<std::int32_t> ProgramLayout::init_model(bool replaced) {
  const auto& inputs = graph().inputs;
  std::vector<std::int32_t> made;  // per input: the tensor, or -1 while it is in fp32
  std::vector<std::pair<std::size_t, std::int32_t>> uncast;
  made.resize(inputs.size(), -1);
  const auto parameter = [&](std::size_t i) { return inputs[i].parameter < 0 ? nullptr : &m_.parameters[static_cast<std::size_t>(inputs[i].parameter)]; };
  const auto make = [&](std::size_t i, Dtype d) {
    const bool stays = !replaced && d == parameter(i)->dtype;
    const std::int32_t t = stays ? inputs[i].node : tensor(node(inputs[i].node).role, Category::weights, d, node(inputs[i].node).shape, node(inputs[i].node).layer);
    alloc(t);
    return t;
  };
  for (const bool of_modules : {true, false}) {
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      const Parameter* p = parameter(i);
      if (p == nullptr || (p->name.find('.') != std::string::npos) != of_modules) continue;
      const bool cast = m_.version.tables_cast_at_init && p->dtype != Dtype::fp32;
      const std::int32_t t = make(i, cast ? Dtype::fp32 : p->dtype);
      if (cast) uncast.emplace_back(i, t);
      else made[i] = t;
    }
  }
  rotary_tables();
  for (const auto& [i, table] : uncast) {
    made[i] = make(i, parameter(i)->dtype);
    free(table);
  }
  if (!replaced) return {};
  std::erase(made, -1);
  return made;
}

// cos and sin are computed in fp32 and replace what to_empty made.
void ProgramLayout::rotary_tables() {
  const NodeId kept[] = {input_named("cos"), input_named("sin")};
  const Shape s = node(kept[0]).shape;
  std::vector<std::int32_t> empty, small, angles;
  const auto scratch = [&](std::vector<std::int32_t>& group, Shape of) {
    group.push_back(tensor("rotary.angles", Category::workspace, Dtype::fp32, of));
    alloc(group.back());
  };
  for (NodeId n : kept) {
    const TensorInfo& t = p_.tensors[static_cast<std::size_t>(n)];
    empty.push_back(tensor(t.role, Category::weights, t.dtype, t.shape));
    alloc(empty.back());
  }
  for (int i = 0; i < 2; ++i) scratch(small, shape({s.dim[3]}, false));  // frequencies
  scratch(small, shape({s.dim[1]}, false));                              // positions
  for (int i = 0; i < 3; ++i) scratch(angles, s);                        // their products, cosines, sines
  for (NodeId n : kept) alloc(n);
  free(angles[1]);
  free(angles[2]);
  let_go(empty);
  let_go(small);
  free(angles[0]);
}

// torch.load with map_location: every stored tensor, on the GPU at once.
void ProgramLayout::read_weights() {
  for (const GraphInput& input : graph().inputs) {
    if (input.parameter >= 0) alloc(input.node);
  }
}

void ProgramLayout::read_optimizer() { make_states(state_.size()); }

void ProgramLayout::let_go(const std::vector<std::int32_t>& tensors) {
  for (std::int32_t t : tensors) free(t);
}

// Made later or with the optimizer: its state, the libraries' workspaces, gradients that are kept.
void ProgramLayout::make_later_tensors() {
  for (const StateTensor& s : optimizer_state(m_, run_)) {
    const std::int32_t t = tensor(s.role, Category::optimizer, s.dtype, shape({s.elements}, false));
    if (std::strcmp(s.role, "muon.zero_buffer") == 0) alloc(t);  // made with the optimizer, not with its first step
    else state_.push_back(t);
    if (std::string_view(s.role).starts_with("adamw.")) ++adamw_states_;
  }
  // one cuBLAS workspace for the main thread, one for autograd's: kept for the life of the process
  const std::int64_t workspace = cublas_workspace_bytes(target_, run_.workspaces);
  for (Workspace& w : workspaces_) w.tensor = tensor("cublas_workspace", Category::workspace, Dtype::uint8, shape({workspace}, false));
  for (Workspace& w : lt_workspaces_) w.tensor = tensor("cublaslt_workspace", Category::workspace, Dtype::uint8, shape({cublaslt_workspace_bytes(run_.workspaces)}, false));
  loss_ = tensor("loss", Category::workspace, Dtype::fp32, shape({1}, false));
  for (NodeId g : step_.gradients) {
    if (g == kNone) {
      sums_.push_back(-1);
      continue;
    }
    sums_.push_back(static_cast<std::int32_t>(p_.tensors.size()));
    p_.tensors.push_back(p_.tensors[static_cast<std::size_t>(g)]);
  }
  if (eager_) add_eager_tensors();
}

// The step's own tensors, beside what is here under another number: inputs and gradients.
void ProgramLayout::add_eager_tensors() {
  eager_tensors_.assign(eager_->program.tensors.size(), -1);
  for (std::size_t i = 0; i < graph().inputs.size(); ++i) {
    eager_tensors_[i] = graph().inputs[i].node;
    if (eager_->gradients[i] >= 0) eager_tensors_[static_cast<std::size_t>(eager_->gradients[i])] = sums_[i];
  }
  for (std::size_t i = 0; i < eager_tensors_.size(); ++i) {
    if (eager_tensors_[i] >= 0) continue;
    eager_tensors_[i] = static_cast<std::int32_t>(p_.tensors.size());
    p_.tensors.push_back(eager_->program.tensors[i]);
  }
}

// The first batch: before anything else runs; of rows in the first step. base_train keeps one buffer since E4d; chat_rl has rows for all samples of a question.
void ProgramLayout::loader() {
  const std::int64_t B = run_.device_batch_size, T = run_.max_seq_len;
  const auto rows = [&](const char* role, Dtype d, std::int64_t count, std::int64_t tokens, bool batched) { alloc(tensor(role, Category::workspace, d, shape({count, tokens}, batched))); };
  const auto batch = [&](const char* role, Dtype d) { rows(role, d, B, T, true); };
  if (run_.script == Script::base_train && m_.version.loader_gpu_buffer) {
    alloc(tensor("loader_buffer", Category::workspace, Dtype::int64, shape({2, B, T}, true)));
    return;
  }
  if (run_.script == Script::chat_rl) {
    for (const char* role : {"rl.ids", "rl.mask"}) rows(role, Dtype::int64, run_.num_samples, T + 1, false);
    rows("rl.targets", Dtype::int64, run_.num_samples, T, false);
    for (const char* role : {"rl.rewards", "rl.advantages"}) rows(role, Dtype::fp32, run_.num_samples, 1, false);
    batch("rl.logp", Dtype::fp32);  // of the last pass, with its objective, its loss and how many tokens count
    for (int i = 0; i < 3; ++i) rows("rl.loss", Dtype::fp32, 1, 1, false);
    return;
  }
  batch("idx", trains_eagerly(w_) ? Dtype::int64 : Dtype::int32);
  batch("targets", Dtype::int64);
  if (masks_targets()) batch("targets.mask", Dtype::uint8);
}

// chat_sft's loader keeps which tokens count, since 2026-03-03 (E5 here).
bool ProgramLayout::masks_targets() const { return run_.script == Script::chat_sft && !m_.version.autocast; }

NodeId ProgramLayout::input_named(const char* role) const {
  for (const GraphInput& input : graph().inputs) {
    if (std::strcmp(node(input.node).role, role) == 0) return input.node;
  }
  return kNone;
}

}  // namespace dryfit

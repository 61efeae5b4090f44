// A transformer's parameters on the tape, adapters beside them, and the products that read them. See transformer.hpp.
#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include "passes/four_bit.hpp"
#include "passes/transformer.hpp"
#include "workload/transformers.hpp"

namespace dryfit::eager {

namespace {

// transformers' name of a module inside its block, what the code here calls it, and the role its tensors show.
struct Name { std::string_view theirs; const char* ours; };
// Modules by transformers' names inside a block, then those outside.
constexpr std::array kModules = {
    Name{"self_attn.q_proj", "attn.q"}, Name{"self_attn.k_proj", "attn.k"}, Name{"self_attn.v_proj", "attn.v"}, Name{"self_attn.o_proj", "attn.o"},
    Name{"self_attn.q_a_proj", "attn.q_a"}, Name{"self_attn.q_b_proj", "attn.q_b"}, Name{"self_attn.kv_a_proj_with_mqa", "attn.kv_a"}, Name{"self_attn.kv_b_proj", "attn.kv_b"},
    Name{"self_attn.q_a_layernorm", "attn.q_a_norm"}, Name{"self_attn.kv_a_layernorm", "attn.kv_a_norm"},
    Name{"self_attn.dense", "attn.o"}, Name{"self_attn.qkv_proj", "attn.qkv"}, Name{"self_attn.q_norm", "attn.q_norm"}, Name{"self_attn.k_norm", "attn.k_norm"},
    Name{"self_attn.q_layernorm", "attn.q_norm"}, Name{"self_attn.k_layernorm", "attn.k_norm"},
    Name{"mlp.gate_proj", "mlp.gate"}, Name{"mlp.up_proj", "mlp.up"}, Name{"mlp.down_proj", "mlp.down"}, Name{"mlp.gate_up_proj", "mlp.gate_up"},
    Name{"mlp.fc1", "mlp.up"}, Name{"mlp.fc2", "mlp.down"}, Name{"input_layernorm", "norm1"}, Name{"post_attention_layernorm", "norm2"},
    Name{"pre_feedforward_layernorm", "norm3"}, Name{"post_feedforward_layernorm", "norm4"}, Name{"attn.c_attn", "attn.qkv"}, Name{"attn.c_proj", "attn.o"},
    Name{"mlp.c_fc", "mlp.up"}, Name{"mlp.c_proj", "mlp.down"}, Name{"ln_1", "norm1"}, Name{"ln_2", "norm2"},
    Name{"attention.query_key_value", "attn.qkv"}, Name{"attention.dense", "attn.o"}, Name{"mlp.dense_h_to_4h", "mlp.up"}, Name{"mlp.dense_4h_to_h", "mlp.down"},
    Name{"attention.self.query", "attn.q"}, Name{"attention.self.key", "attn.k"}, Name{"attention.self.value", "attn.v"}, Name{"attention.output.dense", "attn.o"},
    Name{"attention.output.LayerNorm", "norm1"}, Name{"intermediate.dense", "mlp.up"}, Name{"output.dense", "mlp.down"}, Name{"output.LayerNorm", "norm2"},
    Name{"attention.q_lin", "attn.q"}, Name{"attention.k_lin", "attn.k"}, Name{"attention.v_lin", "attn.v"}, Name{"attention.out_lin", "attn.o"},
    Name{"ffn.lin1", "mlp.up"}, Name{"ffn.lin2", "mlp.down"}, Name{"sa_layer_norm", "norm1"}, Name{"output_layer_norm", "norm2"},
    Name{"mlp.gate", "router"}, Name{"mlp.router", "router"}, Name{"self_attn", "attn.sinks"}, Name{"mlp.experts.gate_up", "experts.gate_up"}, Name{"mlp.experts.down", "experts.down"}, Name{"mlp.shared_expert.gate_proj", "shared.gate"}, Name{"mlp.shared_expert.up_proj", "shared.up"},
    Name{"mlp.shared_expert.down_proj", "shared.down"}, Name{"mlp.shared_experts.gate_proj", "shared.gate"}, Name{"mlp.shared_experts.up_proj", "shared.up"},
    Name{"mlp.shared_experts.down_proj", "shared.down"}, Name{"mlp.shared_expert_gate", "shared.router"},
    // outside the blocks
    Name{"lm_head", "lm_head"}, Name{"cls.predictions.decoder", "lm_head"}, Name{"vocab_projector", "lm_head"}, Name{"lm_head.decoder", "lm_head"},
    Name{"cls.predictions.transform.dense", "head.dense"}, Name{"vocab_transform", "head.dense"}, Name{"lm_head.dense", "head.dense"},
    Name{"cls.predictions.transform.LayerNorm", "head"}, Name{"vocab_layer_norm", "head"}, Name{"lm_head.layer_norm", "head"},
    Name{"pooler.dense", "pooler"}, Name{"pre_classifier", "pooler"}, Name{"classifier.dense", "pooler"},
    Name{"classifier", "classes"}, Name{"classifier.out_proj", "classes"}, Name{"score", "classes"}, Name{"qa_outputs", "classes"},
    Name{"norm", "final"}, Name{"final_layernorm", "final"}, Name{"final_layer_norm", "final"}, Name{"ln_f", "final"},
    Name{"embeddings.LayerNorm", "embedding"}, Name{"cls.predictions", "lm_head"}, Name{"wte", "wte"}, Name{"wpe", "wpe"},
    Name{"embed_tokens", "wte"}, Name{"embed_in", "wte"}, Name{"embeddings.word_embeddings", "wte"}, Name{"embeddings.position_embeddings", "wpe"},
    Name{"embeddings.token_type_embeddings", "token_types"},
};

// "model.layers.3.self_attn.q_proj.weight" -> "self_attn.q_proj"; gpt-oss' "mlp.experts.down_proj_bias" -> "mlp.experts.down"
std::string_view module_of(const Parameter& p) {
  const std::size_t stacked = p.name.find("_proj", p.name.rfind('.'));
  const std::string_view name = std::string_view(p.name).substr(0, stacked != std::string::npos ? stacked : p.name.rfind('.'));
  if (p.layer >= 0) {
    const std::string number = "." + std::to_string(p.layer) + ".";
    return name.substr(name.find(number) + number.size());
  }
  for (std::string_view prefix : {"model.", "transformer.", "gpt_neox.", "bert.", "roberta.", "distilbert."}) {
    if (name.starts_with(prefix)) return name.substr(prefix.size());
  }
  return name;
}

const char* ours(std::string_view module) {
  static constexpr auto kByName = [] {
    auto sorted = kModules;
    std::ranges::sort(sorted, {}, &Name::theirs);
    return sorted;
  }();
  const auto it = std::ranges::lower_bound(kByName, module, {}, &Name::theirs);
  return it == kByName.end() || it->theirs != module ? nullptr : it->ours;
}

Dims shape_of(const Parameter& p) {
  Dims d;
  for (std::int64_t n : p.shape) d.size[d.rank++] = n;
  return contiguous(d);
}

}  // namespace

Transformer::Transformer(Tape& tape, const Architecture& architecture, const Training& training, ForwardOptions options)
    : t_(tape), a_(architecture), r_(training), o_(options), wants_input_gradient_(training.recompute == Recompute::full && (training.lora || training.is_transformers_5())), groups_(groups_experts(architecture, training)) {
  load();
  if (r_.lora && r_.lora->rank > 0) add_adapters();
  if (r_.lora && r_.lora->virtual_tokens > 0) {  // peft's PromptEmbedding
    prompt_ = make("prompt", dims({r_.lora->virtual_tokens, a_.width}, false), Dtype::fp32, true);
    weights_.push_back({prompt_, "prompt", -1, true});
  }
  if (has_value_head()) add_value_head();
}

// AutoModelForCausalLMWithValueHead: in fp32 beside any model, whose own head no gradient reaches, but where it is the embedding.
void Transformer::add_value_head() {
  for (Weight& w : weights_) w.trains = w.trains && !(std::string_view(w.role) == "lm_head");
  value_head_ = {make("value_head", dims({1, a_.width}, false), Dtype::fp32, true), make("value_head", dims({1}, false), Dtype::fp32, true)};
  for (const Tensor* t : {&value_head_.first, &value_head_.second}) weights_.push_back({*t, "value_head", -1, true});
}

Tensor Transformer::make(const char* role, Dims d, Dtype dtype, bool trains) {
  const Category before = t_.category();
  t_.category(Category::weights);
  const bool hollow = o_.shards > 1 || o_.gathered || (o_.flat && trains);
  Tensor t = hollow ? t_.hollow_parameter(role, d, d.elements_in(o_.shards), dtype, trains) : t_.parameter(role, d, dtype, trains);
  t_.category(before);
  return t;
}

bool Transformer::is_target(std::string_view module) const {
  const std::string_view leaf = module.substr(module.rfind('.') + 1);
  const std::vector<std::string>& wanted = r_.lora->targets;
  if (wanted.empty()) {  // peft's defaults (utils/constants.py)
    if (a_.fused_qkv) return ours(module) == std::string_view("attn.qkv");
    if (a_.family == Family::phi && (leaf == "fc1" || leaf == "fc2")) return true;
    return ours(module) == std::string_view("attn.q") || ours(module) == std::string_view("attn.v");
  }
  if (wanted.size() == 1 && wanted[0] == "all-linear") return module != "lm_head" && !module.ends_with("norm");
  return std::ranges::find(wanted, leaf) != wanted.end();
}

// peft's bias="all" and "lora_only".
bool Transformer::trains(const Parameter& p) const {
  if (!r_.lora) return true;
  if (r_.lora->biases == Lora::Biases::none || !p.name.ends_with(".bias")) return false;
  return r_.lora->biases == Lora::Biases::all || is_target(module_of(p));
}

bool Transformer::is_saved_module(const Parameter& p) const {
  const std::string_view module = std::string_view(p.name).substr(0, p.name.rfind('.'));
  return r_.lora && p.layer < 0 && r_.lora->saves(module);
}

// Of a module to save both the frozen weight and a copy that trains stay; the copy is what computes (peft's ModulesToSaveWrapper).
Tensor Transformer::weight_of(const char* role, const Parameter& p) {
  const Dtype dtype = r_.stored();
  const auto add = [&](bool train) {
    Tensor t = make(role, shape_of(p), dtype, train);
    weights_.push_back({t, role, p.layer, train});
    return t;
  };
  Tensor t = add(trains(p));
  return is_saved_module(p) ? add(true) : t;
}

// Linear modules of blocks; DeepSeek's routers are none, nor are gpt-oss' and its experts, nor since transformers 5 any mixture's.
bool Transformer::is_quantized(const Parameter& p) const {
  if (a_.moe && r_.is_transformers_5() && (p.name.find(".mlp.experts.") != std::string::npos || p.name.ends_with(".mlp.gate.weight"))) return false;
  const bool no_linear = (a_.latent && p.name.ends_with(".mlp.gate.weight")) || (a_.moe && a_.moe->stacked && p.name.find(".mlp.") != std::string::npos);
  return r_.quantized && p.layer >= 0 && p.group == ParamGroup::transformer_matrices && !no_linear;
}

// A weight as the file has it, on its way.
Tensor Transformer::as_loaded(Dims d) { return t_.empty("load.weight", d, r_.weights, Category::weights); }

// What it will hold at once, in transformers 4 half of the model's bytes unquantized, or of those that are free but for 1.2 GiB (modeling_utils.py, caching_allocator_warmup).
void Transformer::warm_up(const std::vector<Parameter>& parameters) {
  const bool since5 = r_.is_transformers_5();
  std::int64_t bytes = 0;
  for (const Parameter& p : parameters) bytes += since5 && is_quantized(p) ? p.count() / 2 : p.count() * size_of(r_.weights);
  constexpr std::int64_t kLeftFree = 1'288'490'188;
  if (o_.memory > 0) bytes = std::min(bytes, std::max<std::int64_t>(0, o_.memory - kLeftFree));
  t_.empty("load.warmup", dims({bytes / (since5 ? 2 : 4)}, false), Dtype::fp16, Category::weights);
}

// quantize_4bit into a storage of the weights' dtype: two values a byte, what is left over dropped.
std::int64_t Transformer::packed_elements(std::int64_t count) const { return (count + 1) / (2 * size_of(r_.weights)); }

// from_pretrained with a quantization_config and a device_map: the allocator is warmed up, then the file's tensors by name, each quantized as it comes. What is not quantized is cast to fp32 afterwards, in the model's order
// (peft, prepare_model_for_kbit_training).
void Transformer::load_quantized(const std::vector<Parameter>& parameters) {
  std::vector<const Parameter*> by_name;
  for (const Parameter& p : parameters) by_name.push_back(&p);
  warm_up(parameters);
  std::ranges::sort(by_name, {}, &Parameter::name);
  std::unordered_map<std::string, Tensor> loaded;
  for (const Parameter* p : by_name) {
    if (is_quantized(*p)) place(*p);
    else loaded[p->name] = as_loaded(shape_of(*p));
  }
  for (const Parameter& p : parameters) {
    if (is_quantized(p)) continue;
    if (!r_.lora || !r_.lora->upcast_rest) loaded.erase(p.name);  // the tensor itself stays
    place(p);
    loaded.erase(p.name);
  }
}

// The same where every rank first has all of it, to be shared out then (cpu_ram_efficient_loading = false).
void Transformer::load_whole(const std::vector<Parameter>& parameters) {
  for (const Parameter& p : parameters) {
    Tensor given = as_loaded(shape_of(p));
    if (!is_quantized(p)) {
      whole_.push_back(std::move(given));
      continue;
    }
    const Tensor copy = as_loaded(given.dims());
    whole_.push_back(t_.empty("load.packed", dims({packed_elements(p.count())}, false), r_.weights, Category::weights));
  }
}

// In the order of the model's modules. transformers 4 has RoBERTa's positions before its token types, 5, whose order parameters_of() tells, after its norm.
std::vector<Parameter> Transformer::registered() const {
  std::vector<Parameter> out = parameters_of(a_);
  if (a_.family != Family::roberta || r_.is_transformers_5()) return out;
  const auto named = [&](std::string_view part) { return std::ranges::find_if(out, [part](const Parameter& p) { return p.name.find(part) != std::string::npos; }); };
  const auto types = named("embeddings.token_type_embeddings"), positions = named("embeddings.position_embeddings");
  if (types < positions && positions != out.end()) std::rotate(types, positions, positions + 1);
  return out;
}

void Transformer::load() {
  blocks_.resize(static_cast<std::size_t>(a_.layers));
  if (a_.moe) {
    for (Block& b : blocks_) b.expert.resize(static_cast<std::size_t>(a_.moe->experts));
  }
  const std::vector<Parameter> parameters = registered();
  if (o_.loading != ForwardOptions::Loading::stays) warm_up(parameters);
  if (o_.loading == ForwardOptions::Loading::whole) load_whole(parameters);
  if (r_.quantized && o_.loading == ForwardOptions::Loading::stays) {
    load_quantized(parameters);
  } else {
    for (const Parameter& p : parameters) place(p);
  }
  if (r_.quantized && r_.double_quantized) {  // bitsandbytes' own table of 8-bit values, of which each weight has a copy
    const Category before = t_.category();
    t_.category(Category::weights);
    buffers_.push_back(t_.empty("quant.nested_code", dims({256}, false), Dtype::fp32));
    frozen_bytes_ += 256 * size_of(Dtype::fp32);
    t_.category(before);
  }
  if (a_.norm == NormKind::non_parametric) {  // modules all the same
    for (Block& b : blocks_) b.norm.try_emplace("norm1"), b.norm.try_emplace("norm2");
    outer_.norm.try_emplace("final");
  }
  if (a_.tied_head) {
    Linear& head = outer_.linear["lm_head"];
    head.weight = tables_.at("wte");
    head.shape = head.weight.dims();
  }
  const Category before = t_.category();
  t_.category(Category::weights);
  for (const bool local : {false, true}) {
    if (!has_rotary(local)) continue;
    const Dims frequencies = dims({a_.rotary_dims / 2}, false);
    buffers_.push_back(t_.empty("rotary.inv_freq", frequencies, Dtype::fp32));
    if (r_.is_transformers_5()) buffers_.push_back(t_.empty("rotary.original_inv_freq", frequencies, Dtype::fp32));  // the same storage before
  }
  if (a_.family == Family::gpt2 && !r_.is_transformers_5()) {
    for (std::int64_t layer = 0; layer < a_.layers; ++layer) {
      t_.at(static_cast<int>(layer));
      buffers_.push_back(t_.empty("attn.bias", dims({1, 1, a_.max_positions, a_.max_positions}, false), Dtype::bool8));
      buffers_.push_back(t_.empty("attn.masked_bias", dims({}, false), Dtype::fp32));
    }
    t_.at(-1);
  }
  if (a_.encoder) {
    const auto indices = [&](const char* role) { buffers_.push_back(t_.empty(role, dims({1, a_.position_rows}, false), Dtype::int64)); };
    indices("positions");
    if (a_.encoder->token_types > 0) indices("token_types");
  }
  t_.category(before);
}

void Transformer::place(const Parameter& p) {
  t_.at(p.layer);
  if (a_.moe && !a_.moe->stacked && !groups_ && p.name.find("mlp.experts.") != std::string::npos) {
    expert_weights(p);
    t_.at(-1);
    return;
  }
  const char* name = ours(module_of(p));
  if (name == nullptr) name = "parameter";
  const bool bias = p.name.ends_with("bias");
  Block& block = p.layer >= 0 ? blocks_[static_cast<std::size_t>(p.layer)] : outer_;
  const std::string_view key = name;
  const bool is_norm = key.starts_with("norm") || key.ends_with("_norm") || key == "final" || key == "embedding" || key == "head";
  if (p.group == ParamGroup::wte) {
    if (key == "lm_head") name = "wte";  // a tied head that comes first
    tables_[name] = weight_of(name, p);
  } else if (is_norm) {
    (bias ? block.norm[name].second : block.norm[name].first) = weight_of(name, p);
  } else {
    Linear& l = block.linear[name];
    if (bias) {
      l.bias = weight_of(name, p);
    } else {
      l.conv1d = a_.conv1d && p.group == ParamGroup::transformer_matrices;
      l.shape = l.conv1d ? contiguous(swapped(shape_of(p), 0, 1)) : shape_of(p);
      if (is_quantized(p)) {
        quantize(l, name, p.count(), p.layer);
      } else {
        l.weight = weight_of(name, p);
      }
    }
  }
  t_.at(-1);
}

void Transformer::quantize(Linear& l, const char* name, std::int64_t count, int layer) {
  if (o_.loading != ForwardOptions::Loading::stays) return share_out(l, name, count, layer);
  const Tensor given = as_loaded(dims({count}, false)), copy = as_loaded(given.dims());  // Params4bit._quantize makes one of its own
  Packed packed = pack_4bit(t_, name, count, r_.double_quantized);
  l.packed = packed.values;
  frozen_bytes_ += packed.bytes;
  for (Tensor& t : packed.scales) buffers_.push_back(std::move(t));
}

// Values are packed into the model's dtype, for FSDP to take them as weights of it; their scales stay whole on every rank.
void Transformer::share_out(Linear& l, const char* name, std::int64_t count, int layer) {
  {
    Tensor given, copy;
    if (o_.loading == ForwardOptions::Loading::on_host) given = as_loaded(dims({count}, false)), copy = as_loaded(given.dims());
    Packed packed = pack_4bit(t_, name, count, r_.double_quantized);
    frozen_bytes_ += packed.bytes - packed.values.dims().numel();
    for (Tensor& t : packed.scales) buffers_.push_back(std::move(t));
  }
  l.packed = make(name, dims({packed_elements(count), 1}, false), r_.weights, false);
  weights_.push_back({l.packed, name, layer, false});
}

// One expert's three matrices, as transformers 4 holds them: gate, up, down. parameters_of lists them stacked.
void Transformer::expert_weights(const Parameter& p) {
  const bool up = p.name.ends_with("gate_up_proj");
  Block& block = blocks_[static_cast<std::size_t>(p.layer)];
  const std::int64_t F = a_.moe->expert_ffn, D = a_.width;
  if (!up) return;  // made with the first
  for (std::int64_t e = 0; e < a_.moe->experts; ++e) {
    const std::string number = "expert." + std::to_string(e) + ".";
    const auto add = [&](const char* which, const char* role, std::int64_t out, std::int64_t in) {
      Linear& l = block.linear[number + which];
      l.shape = dims({out, in}, false);
      if (is_quantized(p)) return quantize(l, role, out * in, p.layer);
      l.weight = make(role, l.shape, r_.stored(), !r_.lora);
      weights_.push_back({l.weight, role, p.layer, !r_.lora});
    };
    const bool mixtral = a_.family == Family::mixtral;  // w1 gate, w2 down, w3 up
    add("gate", "expert.gate", F, D);
    if (mixtral) add("down", "expert.down", D, F);
    add("up", "expert.up", F, D);
    if (!mixtral) add("down", "expert.down", D, F);
  }
}

bool Transformer::adapts(const Parameter& p) const {
  if (!r_.lora || r_.lora->rank == 0 || p.layer < 0 || !p.name.ends_with(".weight") || p.shape.size() != 2) return false;
  if (a_.moe && a_.moe->stacked && module_of(p) == "mlp.router") return false;  // no nn.Linear
  return ours(module_of(p)) != nullptr && is_target(module_of(p));
}

// peft: lora_A [r, in], lora_B [out, r], in fp32 beside 16-bit weights (autocast_adapter_dtype) unless told otherwise, module by module.
void Transformer::add_adapters() {
  const std::int64_t r = r_.lora->rank;
  int leaf = UnitHooks::kLeaf;
  const auto adapt = [&](Linear& l, int layer) {
    t_.at(layer);
    Adapter adapter;
    adapter.a = make("lora.A", dims({r, l.shape.size[1]}, false), o_.adapters, true);
    adapter.b = make("lora.B", dims({l.shape.size[0], r}, false), o_.adapters, true);
    if (o_.leaf_units) adapter.leaf = std::exchange(leaf, leaf + 2);
    if (r_.lora->dora) adapter.magnitude = make("lora.magnitude", dims({l.shape.size[0]}, false), r_.lora->dtype ? Dtype::fp32 : o_.adapters, true);
    const Tensor& last = l.bias.defined() ? l.bias : l.weight.defined() ? l.weight : l.packed;
    auto where = std::ranges::find_if(weights_, [&](const Weight& w) { return last.defined() && t_.storage_of(w.tensor) == t_.storage_of(last); });
    if (where != weights_.end()) ++where;
    std::vector<Weight> added{{adapter.a, "lora.A", layer, true, adapter.leaf}, {adapter.b, "lora.B", layer, true, adapter.leaf > 0 ? adapter.leaf + 1 : 0}};
    if (r_.lora->dora) added.push_back({adapter.magnitude, "lora.magnitude", layer, true});
    weights_.insert(where, added.begin(), added.end());
    l.lora = adapter;
    t_.at(-1);
  };
  for (const Parameter& p : parameters_of(a_)) {
    if (!adapts(p)) continue;
    const auto it = blocks_[static_cast<std::size_t>(p.layer)].linear.find(ours(module_of(p)));
    if (it != blocks_[static_cast<std::size_t>(p.layer)].linear.end()) adapt(it->second, p.layer);
  }
}

// nn.Linear, transformers' Conv1D, bitsandbytes' Linear4bit; peft's LoRA around either.
Tensor Transformer::project(const Linear& l, const Tensor& given_x, const char* role) {
  const Tensor x = l.lora ? into(&l.lora->self, {}, given_x) : given_x;
  const auto base = [&]() -> Tensor {
    if (!modules_.before) return product(l, x, role);
    const Tensor given = into(&l, {l.weight, l.bias}, x);
    return out_of(&l, product(l, given, role));
  };
  if (!l.lora) return base();
  if (plain_) return out_of(&l.lora->self, base());
  return out_of(&l.lora->self, r_.lora->dora ? adapted_dora(base(), l, x, role) : adapted(base(), l, x, role));
}

Tensor Transformer::product(const Linear& l, const Tensor& x, const char* role) {
  if (l.packed.defined()) {
    const Tensor cast = t_.to(x, r_.weights, role);  // bnb_4bit_compute_dtype
    Tensor y = t_.linear_4bit(cast, l.packed, l.shape, role, {.nested = r_.double_quantized});
    if (l.bias.defined() && l.bias.requires_grad()) y = t_.add(y, l.bias, role);  // part of the product elsewhere
    return t_.to(y, x.dtype(), role);
  }
  if (!l.conv1d) return t_.linear(x, l.weight, role, l.bias);
  const Dims d = x.dims();
  const Tensor rows = t_.view(x, {d.numel() / d.back(), d.back()});
  Dims out = d;
  out.size[d.rank - 1U] = l.shape.size[0];
  return t_.view(t_.conv1d(rows, l.weight, l.bias, role), out);
}

}  // namespace dryfit::eager

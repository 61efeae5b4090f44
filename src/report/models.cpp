// See models.hpp.
#include "report/models.hpp"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>

#include "report/text.hpp"

namespace dryfit {

namespace {

std::int64_t count(std::span<const Parameter> parameters, std::optional<ParamGroup> group = std::nullopt) {
  std::int64_t n = 0;
  for (const Parameter& p : parameters) n += !group || p.group == *group ? p.count() : 0;
  return n;
}

std::string heads_text(const Architecture& a) { return a.kv_heads == a.heads ? std::to_string(a.heads) : fmt::format("{}/{}", a.heads, a.kv_heads); }

std::string norm_text(const Architecture& a) {
  static constexpr std::array<std::string_view, 4> kKinds = {"layer norm", "RMS norm", "RMS norm (1 + w)", "layer norm without weights"};
  static constexpr std::array<std::string_view, 4> kPlaces = {"before each branch", "after each branch and its residual", "on each branch's output", "before and after each branch"};
  return fmt::format("{} {}", kKinds[static_cast<std::size_t>(a.norm)], kPlaces[static_cast<std::size_t>(a.norm_placement)]);
}

std::string attention_text(const Architecture& a) {
  std::string out;
  if (a.latent) {
    out = fmt::format("{} heads, latent: {} for keys and values{}, {}+{} a query head, {} a value head", a.heads, a.latent->kv_lora_rank,
                      a.latent->q_lora_rank > 0 ? fmt::format(", {} for queries", a.latent->q_lora_rank) : "", a.latent->nope_head_dim, a.latent->rope_head_dim, a.latent->value_head_dim);
  } else {
    out = fmt::format("{} heads of {}, {} for keys and values", a.heads, a.head_dim, a.kv_heads);
  }
  const auto windowed = std::ranges::count_if(a.windows, [](std::int64_t w) { return w > 0; });
  if (windowed > 0) out += fmt::format(", a window of {} in {} of {} layers", *std::ranges::max_element(a.windows), windowed, a.layers);
  if (a.qk_norm != QkNorm::none) out += ", norms on queries and keys";
  if (a.attention_softcap) out += fmt::format(", scores capped at {:g}", *a.attention_softcap);
  if (!a.causal) out += ", both ways";
  return out;
}

std::string mlp_text(const Architecture& a) {
  const std::string kind = fmt::format("{}{}", a.gated_mlp ? "gated " : "", name_of(a.activation));
  if (!a.moe) return fmt::format("{} wide, {}", a.ffn, kind);
  const auto sparse = std::ranges::count(a.moe->layers, true);
  std::string out = fmt::format("{} experts {} wide, {} a token, {}", a.moe->experts, a.moe->expert_ffn, a.moe->top_k, kind);
  if (a.moe->shared_ffn > 0) out += fmt::format(", beside shared ones {} wide", a.moe->shared_ffn);
  if (sparse < a.layers) out += fmt::format("; {} of {} layers dense, {} wide", a.layers - sparse, a.layers, a.ffn);
  return out;
}

std::string position_text(const Architecture& a) {
  if (a.position == Position::learned) return fmt::format("{}, learned", a.max_positions);
  if (a.position == Position::none) return fmt::format("{}, without positions", a.max_positions);
  return fmt::format("{}, rotary{}", a.max_positions, a.latent || a.rotary_dims == a.head_dim ? "" : fmt::format(" in {} of {} dimensions", a.rotary_dims, a.head_dim));
}

}  // namespace

std::string presets_text(std::span<const ListedModel> models) {
  std::string out = fmt::format("{:<28} {:>9}  {:<11} {:>6} {:>6}  {:>7}  {:>9} {:>7} {:>10}\n", "name", "params", "type", "layers", "width", "heads", "experts", "vocab", "positions");
  for (const ListedModel& m : models) {
    const Architecture& a = m.model.architecture;
    out += fmt::format("{:<28} {:>9}  {:<11} {:>6} {:>6}  {:>7}  {:>9} {:>7} {:>10}\n", m.name, count_text(count(parameters_of(a))), a.model_type, a.layers, a.width, heads_text(a),
                       a.moe ? fmt::format("{} of {}", a.moe->top_k, a.moe->experts) : "-", a.vocab, a.max_positions);
  }
  return out;
}

std::string presets_json(std::span<const ListedModel> models) {
  using Ordered = nlohmann::ordered_json;
  Ordered out = Ordered::array();
  for (const ListedModel& m : models) {
    const Architecture& a = m.model.architecture;
    const std::vector<Parameter> parameters = parameters_of(a);
    Ordered assumed = Ordered::array();
    for (const Assumption& s : m.model.assumptions) assumed.push_back({{"key", s.key}, {"value", s.value}, {"source", s.source}});
    out.push_back({{"name", m.name}, {"origin", m.origin}, {"model_type", a.model_type}, {"class", a.class_name}, {"params", count(parameters)}, {"active_params", active_of(a, count(parameters))},
                   {"param_groups", {{"embeddings", count(parameters, ParamGroup::wte)}, {"blocks", count(parameters, ParamGroup::transformer_matrices)}, {"head", count(parameters, ParamGroup::lm_head)}, {"norms_and_biases", count(parameters, ParamGroup::scalars)}}},
                   {"layers", a.layers}, {"width", a.width}, {"heads", a.heads}, {"kv_heads", a.kv_heads}, {"head_dim", a.head_dim}, {"ffn", a.ffn}, {"vocab_size", a.vocab}, {"max_positions", a.max_positions}, {"tied_head", a.tied_head},
                   {"experts", a.moe ? Ordered(a.moe->experts) : Ordered()}, {"experts_per_token", a.moe ? Ordered(a.moe->top_k) : Ordered()}, {"dtype", a.dtype ? Ordered(name_of(*a.dtype)) : Ordered()},
                   {"assumptions", assumed}, {"notes", a.notes}, {"not_read", m.model.unused}});
  }
  return Ordered({{"schema_version", 1}, {"presets", out}}).dump(1, ' ', false, Ordered::error_handler_t::replace) + "\n";
}

std::string model_text(const ListedModel& m) {
  const Architecture& a = m.model.architecture;
  const std::vector<Parameter> parameters = parameters_of(a);
  const std::int64_t all = count(parameters);
  std::string out = fmt::format("{}: {} ({})\n\n", m.name, a.class_name, m.origin);
  const auto line = [&](std::string_view key, std::string_view value) { out += fmt::format("  {:<12} {}\n", key, value); };
  line("layers", fmt::format("{} of width {}, {}{}", a.layers, a.width, norm_text(a), a.parallel_residual ? ", branches side by side" : ""));
  line("attention", attention_text(a));
  line("MLP", mlp_text(a));
  line("positions", position_text(a));
  line("vocabulary", fmt::format("{}, the head {}{}", a.vocab, a.classifies() ? fmt::format("of {} classes", a.classes) : a.tied_head ? "tied to the embedding" : "of its own", a.logit_softcap ? fmt::format(", logits capped at {:g}", *a.logit_softcap) : ""));
  line("parameters", fmt::format("{}: embeddings {}, blocks {}, {}norms and biases {}", all, count(parameters, ParamGroup::wte), count(parameters, ParamGroup::transformer_matrices),
                                 count(parameters, ParamGroup::lm_head) > 0 ? fmt::format("head {}, ", count(parameters, ParamGroup::lm_head)) : "", count(parameters, ParamGroup::scalars)));
  if (a.moe) line("", fmt::format("{} of them for one token", active_of(a, all)));
  line("weights", fmt::format("{} in bf16, {} in fp32", gib_text(Bytes(all) * 2), gib_text(Bytes(all) * 4)));
  line("with AdamW", fmt::format("{} of weights, gradients and two moments in fp32, {} in bf16, before any activation", gib_text(Bytes(all) * 16), gib_text(Bytes(all) * 8)));
  if (a.dtype) line("the file's", fmt::format("dtype is {}", name_of(*a.dtype)));
  for (const Assumption& s : m.model.assumptions) line("assumed", fmt::format("{} {} ({})", s.key, s.value, s.source));
  for (const std::string& n : a.notes) line("note", n);
  if (!m.model.unused.empty()) {
    std::string keys;
    for (std::size_t i = 0; i < m.model.unused.size() && i < 20; ++i) keys += (i == 0 ? "" : ", ") + m.model.unused[i].substr(0, 60);
    line("not read", keys + (m.model.unused.size() > 20 ? fmt::format(" and {} more", m.model.unused.size() - 20) : ""));
  }
  return out;
}

}  // namespace dryfit

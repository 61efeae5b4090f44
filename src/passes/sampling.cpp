// See sampling.hpp.
#include "passes/sampling.hpp"

namespace dryfit {

namespace {

using CacheKind = NanochatVersion::Cache;

class Sampler {
 public:
  using Tensor = Inference::Tensor;
  Sampler(const Workload& w, Attention attention, const Generation& g) : m_(w.model), run_(w.run), g_(g), pass_(w, attention) {}

  EagerForward run() {
    pass_.enter_autocast();
    // the prompt, once
    Cache prompt = m_.version.kv_cache == CacheKind::grown ? Cache{} : make_cache(1, g_.prompt);
    const Tensor ids = pass_.make("sample.ids", Dtype::int64, {1, g_.prompt});
    if (m_.version.kv_cache == CacheKind::grown) prompt = make_cache(1, g_.prompt);  // made when the first layer has keys
    // E6: the cache keeps a view of the last embedding, and with it all of them
    if (m_.version.smear_backout) prompt.previous = pass_.make("sample.embedding", run_.compute, {1, g_.prompt, m_.width});
    Tensor logits = pass_.forward(1, g_.prompt, 0);
    const std::size_t of_samples = pass_.count();
    // the cache of all samples takes a copy
    Cache cache = make_cache(g_.samples, g_.prompt + g_.new_tokens);
    if (m_.version.smear_backout) cache.previous = pass_.make("sample.prev_embedding", run_.compute, {g_.samples, 1, m_.width});
    drop(prompt);
    Tensor last_ids = ids;
    for (std::int64_t token : {std::int64_t{1}, g_.new_tokens}) {
      const Tensor next = pass_.make("sample.ids", Dtype::int64, {g_.samples, 1});
      pass_.drop({last_ids});
      last_ids = next;
      const Tensor now = pass_.forward(g_.samples, 1, g_.prompt + token - 1);
      pass_.drop({logits});  // the name is given to the new ones when they are there
      logits = now;
    }
    pass_.drop({logits, last_ids});
    drop(cache);
    pass_.leave_autocast();
    EagerForward forward = pass_.take();
    if (run_.script == Script::chat_rl) mark_batched(forward, of_samples);
    return forward;
  }

 private:
  struct Cache { std::vector<Tensor> parts; Tensor previous = -1; };

  // Keys and values of every layer: two tensors since E3, one before.
  Cache make_cache(std::int64_t rows, std::int64_t tokens) {
    const CacheKind kind = m_.version.kv_cache;
    const Dtype d = kind == CacheKind::bf16 ? Dtype::bf16 : run_.compute;
    if (kind == CacheKind::grown) return {{pass_.make("sample.kv_cache", d, {2 * m_.depth, rows, tokens, m_.kv_heads * m_.head_dim})}, -1};
    Cache cache;
    for (const char* role : {"sample.k_cache", "sample.v_cache"}) cache.parts.push_back(pass_.make(role, d, {m_.depth, rows, tokens, m_.kv_heads * m_.head_dim}));
    cache.parts.push_back(pass_.make("sample.cache_seqlens", Dtype::int32, {rows}));
    return cache;
  }

  void drop(const Cache& cache) {
    for (Tensor t : cache.parts) pass_.drop({t});
    if (cache.previous >= 0) pass_.drop({cache.previous});
  }

  const Model& m_;
  const Run& run_;
  Generation g_;
  Inference pass_;
};

}  // namespace

EagerForward generate(const Workload& workload, Attention attention, const Generation& generation) { return Sampler(workload, attention, generation).run(); }

}  // namespace dryfit

// Any bytes as a config.json, and as configurations of DeepSpeed and accelerate: a model whose tensors have whole, positive, countable sizes, or an error with a hint and a place.
#include <cstdlib>
#include <string_view>

#include "workload/hf_config.hpp"
#include "workload/probe_document.hpp"
#include "workload/transformers.hpp"

namespace {

void expect(bool condition) {
  if (!condition) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  using namespace dryfit;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto document = document_from_json(text, "config.json");
  if (!document) {
    expect(!document.error().hint.empty() && !document.error().where.empty() && !document.error().message.empty());
    return 0;
  }
  for (auto apply : {apply_deepspeed, apply_accelerate}) {
    TransformersFlags flags;
    KeysTold told;
    const auto applied = apply(*document, "config.json", flags, told);
    expect(applied || (!applied.error().hint.empty() && !applied.error().where.empty()));
  }
  const auto model = architecture_from(*document, "config.json");
  if (!model) {
    expect(!model.error().hint.empty() && !model.error().where.empty() && !model.error().message.empty());
    return 0;
  }
  const Architecture& a = model->architecture;
  expect(a.layers >= 1 && a.width >= 1 && a.heads >= 1 && a.head_dim >= 1 && a.vocab >= 1 && a.heads % a.kv_heads == 0);
  expect(a.windows.size() == static_cast<std::size_t>(a.layers) && (!a.moe || a.moe->layers.size() == a.windows.size()));
  std::int64_t total = 0;
  for (const Parameter& p : parameters_of(a)) {
    expect(!p.name.empty() && p.layer < a.layers && p.count() >= 1);
    total += p.count();
    expect(total >= 1);
  }
  const auto workload = make_transformers_workload(*model, {});
  expect(workload ? workload->run.total_batch_size >= 1 && workload->model.param_count() == total : !workload.error().hint.empty());
  return 0;
}

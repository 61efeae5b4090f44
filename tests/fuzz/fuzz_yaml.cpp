// Any bytes as YAML, and as configurations of accelerate and axolotl: a tree within the limits, or an error with a hint and a place.
#include <cstdlib>
#include <string_view>

#include "workload/axolotl.hpp"
#include "workload/probe_document.hpp"
#include "workload/transformers.hpp"

namespace {

void expect(bool condition) {
  if (!condition) std::abort();
}

std::size_t values_of(const dryfit::Document& d, int depth) {
  expect(depth <= 65);
  std::size_t n = 1;
  for (const auto& item : d.items) n += values_of(item, depth + 1);
  for (const auto& [key, value] : d.fields) n += values_of(value, depth + 1);
  return n;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  using namespace dryfit;
  const auto document = document_from_yaml(std::string_view(reinterpret_cast<const char*>(data), size), "config.yaml");
  if (!document) {
    expect(!document.error().hint.empty() && document.error().where.starts_with("config.yaml") && !document.error().message.empty());
    return 0;
  }
  expect(values_of(*document, 0) <= 1 << 18);
  for (auto apply : {apply_accelerate, apply_axolotl}) {
    TransformersFlags flags;
    KeysTold told;
    const auto applied = apply(*document, "config.yaml", flags, told);
    expect(applied || (!applied.error().hint.empty() && !applied.error().where.empty()));
  }
  return 0;
}

// Any bytes as TOML, and as a configuration of torchtitan: a tree within the limits, or an error with a hint and a place.
#include <cstdlib>
#include <string_view>

#include "workload/probe_document.hpp"
#include "workload/torchtitan.hpp"

namespace {

void expect(bool condition) {
  if (!condition) std::abort();
}

void within_limits(const dryfit::Document& d, int depth) {
  expect(depth <= 65);
  for (const auto& item : d.items) within_limits(item, depth + 1);
  for (const auto& [key, value] : d.fields) within_limits(value, depth + 1);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  using namespace dryfit;
  const auto document = document_from_toml(std::string_view(reinterpret_cast<const char*>(data), size), "config.toml");
  if (!document) {
    expect(!document.error().hint.empty() && document.error().where.starts_with("config.toml") && !document.error().message.empty());
    return 0;
  }
  within_limits(*document, 0);
  TransformersFlags flags;
  KeysTold told;
  const auto applied = apply_torchtitan(*document, "config.toml", 8, flags, told);
  expect(applied || (!applied.error().hint.empty() && !applied.error().where.empty()));
  return 0;
}

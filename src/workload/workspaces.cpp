// See workspaces.hpp. parseChosenWorkspaceSize, parseCUDABlasLtWorkspaceSize, getCUDABlasLtWorkspace.
#include "workload/workspaces.hpp"

#include "base/text.hpp"

namespace dryfit {

namespace {

constexpr std::string_view kCublas = "CUBLAS_WORKSPACE_CONFIG", kCublasLt = "CUBLASLT_WORKSPACE_SIZE", kUnified = "TORCH_CUBLASLT_UNIFIED_WORKSPACE";
constexpr std::int64_t kMostKib = 1 << 20;

}  // namespace

bool sizes_workspaces(std::string_view variable) { return variable == kCublas || variable == kCublasLt || variable == kUnified; }

Result<ProductWorkspaces> product_workspaces(Variables given, std::string_view torch) {
  ProductWorkspaces out;
  out.unified = version_from(torch, 2, 12);
  for (const auto& [variable, value] : given) {
    if (variable == kCublas) {
      const auto bytes = cublas_workspace_of(value, variable);
      if (!bytes) return std::unexpected(bytes.error());
      out.cublas = *bytes;
    } else if (variable == kCublasLt) {
      const auto kib = parse_int(value, variable);
      if (!kib || *kib < 0 || *kib > kMostKib) return fail("bad_value", variable + "=" + value.substr(0, 40) + " is no number of KiB", "write 1024, which is PyTorch's own", variable);
      out.cublaslt = *kib * 1024;
    } else if (variable == kUnified) {
      if (value != "0" && value != "1") return fail("bad_value", variable + "=" + value.substr(0, 40) + " is neither 0 nor 1", "write 1 for one workspace for both libraries", variable);
      out.unified = value == "1" && version_from(torch, 2, 8);
    }
  }
  out.given = std::move(given);
  return out;
}

Result<std::int64_t> cublas_workspace_of(const std::string& text, const std::string& where) {
  const auto bad = [&] { return fail("bad_value", where + "=" + text.substr(0, 40) + " is not a list of :SIZE:COUNT", "write :4096:8, which is eight workspaces of 4096 KiB", where); };
  std::int64_t total = 0, size = 0;
  const auto parts = split(text, ':');
  if (parts.size() < 3 || parts.size() % 2 == 0 || !parts[0].empty() || parts.size() > 33) return bad();
  for (std::size_t i = 1; i < parts.size(); ++i) {
    const auto n = parse_int(std::string(parts[i]), where);
    if (!n || *n < 0 || *n > kMostKib) return bad();
    if (i % 2 == 1) size = *n;
    else total += size * *n * 1024;
  }
  return total;
}

}  // namespace dryfit

// What the environment says of cuBLAS' workspaces, from a pasted command to the tensors that are laid out and back to a command.
#include "workload/workspaces.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "passes/program.hpp"
#include "plan/launch.hpp"

namespace dryfit {
namespace {

Result<Workload> of_command(const std::string& line, const char* torch = nullptr) {
  auto pasted = parse_pasted_command(*shell_split(line));
  if (!pasted) return std::unexpected(pasted.error());
  if (torch != nullptr) pasted->flags.torch = torch;
  return make_nanochat_workload(pasted->flags);
}

// Bytes of the workspaces of a role that are ever allocated.
std::multiset<std::int64_t> laid_out(const Workload& w, std::string_view role, const Target& target) {
  const Program p = build_program(w, target, w.run.grad_accum_steps > 1);
  std::multiset<std::int64_t> out;
  for (const Event& e : p.events) {
    const TensorInfo& t = p.tensors[static_cast<std::size_t>(e.tensor)];
    if (e.kind == Event::Kind::alloc && t.role == role) out.insert(t.bytes);
  }
  return out;
}

constexpr Target kA100{8, 0, 312}, kH100{9, 0, 989};
constexpr const char* kRun = "python -m scripts.base_train --depth=4 --device-batch-size=2";

TEST(Workspaces, ACommandSizesThem) {
  using Sizes = std::multiset<std::int64_t>;
  const std::string fp8 = std::string(kRun) + " --fp8";
  struct Case { std::string before, run; const char* torch; Target target; Sizes cublas, cublaslt; };
  for (const Case& c : {Case{"", kRun, "2.9.1", kA100, {8519680, 8519680}, {}}, Case{"", kRun, "2.9.1", kH100, {33554432, 33554432}, {}},
                        Case{"CUBLAS_WORKSPACE_CONFIG=:4096:8 ", kRun, "2.9.1", kA100, {33554432, 33554432}, {}}, Case{"CUBLAS_WORKSPACE_CONFIG=:16:8 ", kRun, "2.9.1", kH100, {131072, 131072}, {}},
                        Case{"CUBLAS_WORKSPACE_CONFIG=:0:0 ", kRun, "2.9.1", kH100, {}, {}},  // cuBLAS then takes none, and nothing is asked for
                        Case{"", fp8, "2.9.1", kH100, {33554432, 33554432}, {1 << 20, 1 << 20}}, Case{"CUBLASLT_WORKSPACE_SIZE=4096 ", fp8, "2.9.1", kH100, {33554432, 33554432}, {4 << 20, 4 << 20}},
                        Case{"TORCH_CUBLASLT_UNIFIED_WORKSPACE=1 ", fp8, "2.9.1", kH100, {33554432, 33554432}, {}}, Case{"TORCH_CUBLASLT_UNIFIED_WORKSPACE=1 ", fp8, "2.7.0", kH100, {33554432, 33554432}, {1 << 20, 1 << 20}},
                        Case{"", fp8, "2.12.0", kH100, {33554432, 33554432}, {}}, Case{"TORCH_CUBLASLT_UNIFIED_WORKSPACE=0 ", fp8, "2.12.0", kH100, {33554432, 33554432}, {1 << 20, 1 << 20}}}) {
    const auto w = of_command(c.before + c.run, c.torch);
    ASSERT_TRUE(w) << w.error().message;
    EXPECT_EQ(laid_out(*w, "cublas_workspace", c.target), c.cublas) << c.before << c.torch;
    EXPECT_EQ(laid_out(*w, "cublaslt_workspace", c.target), c.cublaslt) << c.before << c.torch;
  }
}

TEST(Workspaces, CommandsKeepThem) {
  const auto w = of_command("CUBLAS_WORKSPACE_CONFIG=:4096:8 TORCH_CUBLASLT_UNIFIED_WORKSPACE=1 " + std::string(kRun));
  ASSERT_TRUE(w);
  const std::string written = shell_join(launch_command(*w));
  EXPECT_TRUE(written.starts_with("CUBLAS_WORKSPACE_CONFIG=:4096:8 TORCH_CUBLASLT_UNIFIED_WORKSPACE=1 python -m scripts.base_train")) << written;
  const auto again = of_command(written);
  ASSERT_TRUE(again);
  EXPECT_EQ(again->run.workspaces.cublas, w->run.workspaces.cublas);
  EXPECT_EQ(shell_join(launch_command(*again)), written);
}

TEST(Workspaces, WhatPyTorchCannotReadIsAnError) {
  for (const char* bad : {"CUBLAS_WORKSPACE_CONFIG=", "CUBLAS_WORKSPACE_CONFIG=4096:8", "CUBLAS_WORKSPACE_CONFIG=:4096", "CUBLASLT_WORKSPACE_SIZE=4MiB", "CUBLASLT_WORKSPACE_SIZE=-1", "TORCH_CUBLASLT_UNIFIED_WORKSPACE=yes"}) {
    const auto w = of_command(std::string(bad) + " " + kRun);
    ASSERT_FALSE(w) << bad;
    EXPECT_EQ(w.error().code, "bad_value");
    EXPECT_EQ(w.error().where, std::string(bad).substr(0, std::string(bad).find('=')));
    EXPECT_FALSE(w.error().hint.empty());
  }
}

}  // namespace
}  // namespace dryfit

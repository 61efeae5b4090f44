// What the environment says of the memory that PyTorch keeps for cuBLAS and cuBLASLt. How much it keeps unasked, by GPU: passes/program.hpp.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.hpp"

namespace dryfit {

// Variables of an environment, in the order in which they were given.
using Variables = std::vector<std::pair<std::string, std::string>>;

// Of each handle and stream, in bytes. Source: aten/src/ATen/cuda/CublasHandlePool.cpp.
struct ProductWorkspaces {
  Variables given;                       // as they stand in the command
  std::optional<std::int64_t> cublas;    // CUBLAS_WORKSPACE_CONFIG
  std::optional<std::int64_t> cublaslt;  // CUBLASLT_WORKSPACE_SIZE
  bool unified = false;                  // cuBLASLt works in cuBLAS' own
};

// CUBLAS_WORKSPACE_CONFIG, CUBLASLT_WORKSPACE_SIZE, TORCH_CUBLASLT_UNIFIED_WORKSPACE.
bool sizes_workspaces(std::string_view variable);

// What these variables mean to a torch ("2.9.1"): unified is heeded from 2.8 on (PyTorch's pull request 151163), and the rule where nothing is said from 2.12 on (168175, 175879). Errors: "bad_value".
Result<ProductWorkspaces> product_workspaces(Variables given, std::string_view torch);

// Bytes of CUBLAS_WORKSPACE_CONFIG (":4096:8", ":4096:2:16:8"), as PyTorch reads it. Errors: "bad_value".
Result<std::int64_t> cublas_workspace_of(const std::string& text, const std::string& where);

}  // namespace dryfit

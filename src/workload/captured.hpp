// What a captured run says of itself: a training script that PyTorch ran without a GPU (docs/capture.md). Its events are capture/'s.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace dryfit {

struct CapturedRun {
  std::string script;           // "python train.py --batch 8"
  std::string torch;            // "2.9.1"
  std::string gpu;              // the GPU that the script was shown; it may have chosen its kernels by it
  int compute_major = 0, compute_minor = 0;
  std::string alloc_conf;       // PYTORCH_CUDA_ALLOC_CONF as the script left it; empty: not set
  std::string compile = "none"; // torch.compile: none · graphs (Inductor's own buffers) · eager (traced op by op)
  std::int64_t parameters = 0;  // elements of the parameters that live on the GPU
  std::int64_t steps = 0;       // optimizer steps that were seen
  std::int64_t micro_steps = 0; // backward passes of the last of them
  std::vector<std::string> notes;     // what was answered in place of values, and what was not followed
  std::shared_ptr<const void> names;  // keeps the names of the program's tensors alive
};

}  // namespace dryfit

// Out-of-memory messages for tests, written from their parts: one maker for each wording that PyTorch has had.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace dryfit::test {

struct Numbers {
  std::string tried = "2.00 GiB", total = "23.64 GiB", free = "0.75 GiB", allocated = "21.10 GiB", idle = "0.40 GiB", reserved = "21.50 GiB";
  std::string process;                                        // "Including non-PyTorch memory, this process has ..."
  std::vector<std::pair<int, std::string>> others;            // "Process 12 has ..."
  std::string allowed, pools;
  int device = 0;
};

inline std::string t0(const Numbers& n) {
  return "RuntimeError: CUDA out of memory. Tried to allocate " + n.tried + " (GPU " + std::to_string(n.device) + "; " + n.total + " total capacity; " + n.allocated + " already allocated; " + n.free + " free; " + n.idle + " cached)";
}
inline std::string t1(const Numbers& n) {
  return "RuntimeError: CUDA out of memory. Tried to allocate " + n.tried + " (GPU " + std::to_string(n.device) + "; " + n.total + " total capacity; " + n.allocated + " already allocated; " + n.free + " free; " +
         (n.allowed.empty() ? "" : n.allowed + " allowed; ") + n.reserved + " reserved in total by PyTorch)";
}
inline std::string t2(const Numbers& n) {
  std::string text = t1(n);
  return "torch.cuda.OutOfMemoryError" + text.substr(text.find(':')) + " If reserved memory is >> allocated memory try setting max_split_size_mb to avoid fragmentation.  See documentation for Memory Management and PYTORCH_CUDA_ALLOC_CONF";
}
// From 2.1 on. device: CUDA, HIP or XPU; capacity as spelt by the version; tail as printed by it.
inline std::string modern(const Numbers& n, const std::string& error = "torch.OutOfMemoryError", const std::string& backend = "CUDA", const std::string& capacity = "capacity",
                          const std::string& tail = " If reserved but unallocated memory is large try setting PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid fragmentation.") {
  std::string out = (error.empty() ? "" : error + ": ") + backend + " out of memory. Tried to allocate " + n.tried + ". GPU " + std::to_string(n.device) + " has a total " + capacity + " of " + n.total + " of which " + n.free + " is free. ";
  for (const auto& [pid, memory] : n.others) out += "Process " + std::to_string(pid) + " has " + memory + " memory in use. ";
  if (!n.process.empty()) out += "Including non-PyTorch memory, this process has " + n.process + " memory in use. ";
  if (!n.allowed.empty()) out += n.allowed + " allowed; ";
  return out + "Of the allocated memory " + n.allocated + " is allocated by PyTorch, " + (n.pools.empty() ? "" : "with " + n.pools + " allocated in private pools (e.g., CUDA Graphs), ") + "and " + n.idle + " is reserved by PyTorch but unallocated." + tail;
}
inline std::string async(const Numbers& n) {
  return "torch.OutOfMemoryError: Allocation on device " + std::to_string(n.device) + " would exceed allowed memory. (out of memory)\nCurrently allocated     : " + n.allocated + "\nRequested               : " + n.tried + "\nDevice limit            : " + n.total +
         "\nFree (according to CUDA): " + n.free + "\nPyTorch limit (set by user-supplied memory fraction)\n                        : " + (n.allowed.empty() ? "17179869184.00 GiB" : n.allowed);
}

}  // namespace dryfit::test

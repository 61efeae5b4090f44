// Training logs for tests, written line by line as nanochat prints them.
#pragma once

#include <string>

namespace dryfit::test {

struct NanochatLog {
  int depth = 26, heads = 13, width = 1664, batch = 32, ranks = 8;
  long total = 1048576;
  std::string parameters = "1,681,786,938", gpu = "NVIDIA H100 80GB HBM3", command;
};

inline std::string commas(long n) {
  std::string out = std::to_string(n);
  for (int at = static_cast<int>(out.size()) - 3; at > 0; at -= 3) out.insert(static_cast<std::size_t>(at), ",");
  return out;
}

inline std::string head(const NanochatLog& l) {
  std::string out = l.command.empty() ? "" : "+ " + l.command + "\n";
  out += "GPU: " + l.gpu + " | Peak FLOPS (BF16): 9.89e+14\nCOMPUTE_DTYPE: torch.bfloat16 (auto-detected: CUDA SM 90 (bf16 supported))\n";
  out += "Vocab size: 32,768\nModel config:\n{\n  \"sequence_len\": 2048,\n  \"vocab_size\": 32768,\n  \"n_layer\": " + std::to_string(l.depth) + ",\n  \"n_head\": " + std::to_string(l.heads) + ",\n  \"n_kv_head\": " + std::to_string(l.heads) +
         ",\n  \"n_embd\": " + std::to_string(l.width) + ",\n  \"window_pattern\": \"SSSL\"\n}\nParameter counts:\ntotal                   : " + l.parameters + "\n";
  out += "Tokens / micro-batch / rank: " + std::to_string(l.batch) + " x 2048 = " + commas(l.batch * 2048L) + "\nTokens / micro-batch: " + commas(l.batch * 2048L * l.ranks) + "\n";
  out += "Total batch size " + commas(l.total) + " => gradient accumulation steps: " + std::to_string(l.total / (l.batch * 2048L * l.ranks)) + "\n";
  return out;
}

inline std::string validated() { return "Step 00000 | Validation bpb: 3.280012\n"; }

inline std::string step(int n, int planned, double ms = 1000, double mfu = 41.2) {
  char text[400];
  std::snprintf(text, sizeof text, "step %05d/%05d (%.2f%%) | loss: 4.210000 | lrm: 1.00 | dt: %.2fms | tok/sec: %s | bf16_mfu: %.2f | epoch: 1 pq: 0 rg: 3 | total time: 0.10m\n", n, planned, 100.0 * n / planned, ms, commas(static_cast<long>(1048576 / ms * 1000)).c_str(), mfu);
  return text;
}

// A traceback; rank < 0: without prefix.
inline std::string traceback(const std::string& file, const std::string& function, const std::string& code, const std::string& error, int rank = -1) {
  const std::string p = rank < 0 ? "" : "[rank" + std::to_string(rank) + "]: ";
  return p + "Traceback (most recent call last):\n" + p + "  File \"/home/u/nanochat/scripts/base_train.py\", line 500, in <module>\n" + p + "    run()\n" + p + "  File \"" + file + "\", line 41, in " + function + "\n" + p + "    " + code + "\n" + p + error + "\n";
}

}  // namespace dryfit::test
